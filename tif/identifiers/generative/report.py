"""What `generative` asks, gets and pays: an estimate before a run, a report after it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from tif.identifiers.generative.prompts_and_replies import Outcome, TokenCount


@dataclasses.dataclass
class Estimate:
    """Requests that are still to be sent, and their cost."""

    samples: int  # to be labelled
    requests: int  # first requests to send; second questions are not known before
    cached: int  # first replies that are on disk
    tokens: TokenCount  # guessed from the texts' lengths
    cost: float | None  # of these tokens; None without prices
    at_most: float  # a cost that first replies cannot exceed
    paid_before: float  # what earlier requests cost


@dataclasses.dataclass
class LabelReport(Outcome):
    """Requests, replies and cost of a run; `failed` is by sample id."""

    samples: int = 0  # to be labelled
    cached: int = 0  # first replies that were on disk before
    cost: float | None = None  # of this run; None without prices
    total_cost: float = 0.0  # with that of earlier runs
    missing: tuple[tuple[str, str], ...] = ()  # (sample id, named string that is not in the text)
    empty: tuple[str, ...] = ()  # ids of samples in which the model found nothing unwanted
    agreement: float | None = None  # mean Jaccard index of votes, 0 to 1; None with one vote


def describe_estimate(estimate: Estimate) -> list[str]:
    """Return lines that say what the generative identifier would ask, and the cost."""
    tokens = estimate.tokens
    lines = [
        f"{estimate.samples} samples: {estimate.requests} requests to send, "
        f"{estimate.cached} answers kept from before",
        f"about {tokens.prompt} prompt tokens and {tokens.answer} answer tokens",
    ]
    if estimate.cost is None:
        lines.append("cost unknown: give price_in and price_out (per million tokens)")
    else:
        lines.append(
            f"cost about {estimate.cost:.4f}, at most {estimate.at_most:.4f}; "
            f"{estimate.paid_before:.4f} paid before"
        )
    return lines


def describe_report(report: LabelReport) -> list[str]:
    """Return lines that say what the generative identifier asked, found and paid."""
    cost = ""
    if report.cost is not None:
        cost = f", cost {report.cost:.4f} ({report.total_cost:.4f} with what was kept)"
    lines = [
        f"{report.samples} samples, {report.replies} replies got, "
        f"{report.cached} answers kept from before",
        f"{report.tokens.prompt} prompt tokens, {report.tokens.answer} answer tokens{cost}",
    ]
    if report.uncounted:
        lines.append(
            f"{report.uncounted} requests without a token count that can be true: each is counted "
            "at its upper limit"
        )
    if report.agreement is not None:
        lines.append(
            f"agreement between votes: {report.agreement:.3f} (mean Jaccard similarity of words)"
        )
    if report.missing:
        strings = [f"{string!r} ({name})" for name, string in report.missing]
        lines.append(f"{len(strings)} strings are not in their answers: {_shorten(strings)}")
    if report.empty:
        lines.append(f"{len(report.empty)} samples have no unwanted word: {_shorten(report.empty)}")
    for reason, count in Counter(report.failed.values()).most_common():
        names = [name for name, other in report.failed.items() if other == reason]
        lines.append(f"{count} samples have no answer: {reason}: {_shorten(names)}")
    return lines


def _shorten(names: Sequence[str], most: int = 10) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
