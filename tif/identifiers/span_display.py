"""Answers with their unwanted words marked, printed or as HTML; the report of `generative`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tif.data.samples import Sample
from tif.identifiers.span_comparison import count_units

if TYPE_CHECKING:
    from rich.console import Console

    from tif.identifiers.generative.identify import Estimate, Report

UNWANTED = "bold red"  # of words in a terminal, also in `tif chat`

def split_marked(sample: Sample) -> Iterator[tuple[str, bool]]:
    """Yield the answer in stretches, with whether they are unwanted."""
    position = 0
    for span in sample.unwanted or ():
        if span.start > position:
            yield sample.answer[position : span.start], False
        yield sample.answer[span.start : span.end], True
        position = span.end
    if position < len(sample.answer):
        yield sample.answer[position:], False


def summarize(samples: Sequence[Sample]) -> str:
    """Return how many samples and words there are, and which share of the words is unwanted."""
    words = count_units(samples)
    counts = f"{len(words.unwanted):,} of {words.total:,} words unwanted"
    return f"{len(samples)} samples, {counts} ({words.unwanted_share:.1%})"


def print_samples(samples: Sequence[Sample], console: "Console") -> None:
    """Print prompts and answers, unwanted words in red.

    Where there is no colour they stand in [[double brackets]].
    """
    from rich.text import Text

    from tif.utils.terminal import literal

    has_colour = console.is_terminal and not console.no_color
    is_log = not console.is_terminal  # whose lines are whole; in a terminal they wrap at blanks
    for sample in samples:
        title = f"{sample.id}  {sample.prompt}".rstrip()
        console.print(literal(title, "dim"), soft_wrap=is_log)
        line = Text()
        for stretch, is_unwanted in split_marked(sample):
            shown = stretch if has_colour or not is_unwanted else f"[[{stretch}]]"
            line.append(literal(shown, UNWANTED if has_colour and is_unwanted else ""))
        console.print(line, soft_wrap=is_log)
        console.print()
    console.print(summarize(samples), soft_wrap=True)


def describe_samples(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return for JSON each answer and its unwanted stretches, as [start, end, text]."""
    lines: list[dict[str, Any]] = []
    for sample in samples:
        unwanted = []
        for span in sample.unwanted or ():
            unwanted.append([span.start, span.end, sample.answer[span.start : span.end]])
        lines.append({"id": sample.id, "prompt": sample.prompt, "answer": sample.answer})
        lines[-1]["unwanted"] = unwanted
    return lines


def render_page(title: str, settings: dict[str, Any], samples: Sequence[Sample]) -> str:
    """Return the samples with their marked words as an HTML page that needs no other file.

    Everything from the data is escaped: forget data may hold markup.
    """
    settings_line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    values = {"title": title, "settings": settings_line, "summary": summarize(samples)}
    return _render("span_page.html", samples, **values)


def render_samples(title: str, samples: Sequence[Sample], most: int = 20) -> str:
    """Return samples as HTML for a notebook, whose colours it takes; at most so many of them.

    Everything from the data is escaped.
    """
    style = "background:rgba(220,50,47,.25);color:inherit;border-bottom:2px solid #dc322f"
    rows = _render("span_samples.html", samples[:most], mark_style=style, title=title)
    more = f"<p>... and {len(samples) - most} more</p>" if len(samples) > most else ""
    return rows + more


def _render(template: str, samples: Sequence[Sample], **values: str) -> str:
    """Return a template of this folder, filled in; jinja2 escapes every value."""
    from jinja2 import Environment, PackageLoader

    from tif.utils.terminal import escape_controls

    environment = Environment(loader=PackageLoader("tif.identifiers", ""), autoescape=True)
    environment.filters["show_controls"] = escape_controls
    values_of_all = {"samples": samples, "split_marked": split_marked, **values}
    return environment.get_template(template).render(values_of_all)


def describe_estimate(estimate: "Estimate") -> list[str]:
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


def describe_report(report: "Report") -> list[str]:
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
