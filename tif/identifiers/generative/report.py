"""What asking will cost, and what came of it."""

import dataclasses
from collections import Counter


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What is still to be asked. Tokens are guessed from the texts' lengths; `at_most` cannot be exceeded by first
    replies; the cost is None where no prices are given.
    """

    samples: int
    requests: int
    kept: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None
    at_most: float
    already: float

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"{self.samples} samples: {self.requests} requests to send, {self.kept} answers kept from before",
            f"about {self.prompt_tokens} prompt tokens and {self.answer_tokens} answer tokens",
        ]
        if self.cost is None:
            return [*lines, "cost unknown: give price_in and price_out (per million tokens)"]
        return [*lines, f"cost about {self.cost:.4f}, at most {self.at_most:.4f}; {self.already:.4f} paid before"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was asked and what came of it.

    Attributes:
        samples: how many were to be labelled.
        asked: replies got in this run, those of no use included.
        kept: first answers that were on disk before.
        prompt_tokens, answer_tokens: of this run, as the server counts them (guessed where it doesn't).
        cost: of this run; None without prices. `cost_in_all`: with the kept answers'.
        missing: (sample id, string) that the model named twice and that stands nowhere in the answer.
        empty: ids of samples in which the model found nothing unwanted.
        failed: why samples have no answer, by id.
        agreement: mean Jaccard similarity between votes, 0 to 1; None with one vote.
    """

    samples: int
    asked: int
    kept: int
    prompt_tokens: int
    answer_tokens: int
    cost: float | None
    cost_in_all: float
    missing: tuple[tuple[str, str], ...]
    empty: tuple[str, ...]
    failed: dict[str, str]
    agreement: float | None

    def lines(self) -> list[str]:
        """For people."""
        cost = "" if self.cost is None else f", cost {self.cost:.4f} ({self.cost_in_all:.4f} with what was kept)"
        lines = [
            f"{self.samples} samples, {self.asked} replies got, {self.kept} answers kept from before",
            f"{self.prompt_tokens} prompt tokens, {self.answer_tokens} answer tokens{cost}",
        ]
        if self.agreement is not None:
            lines.append(f"agreement between votes: {self.agreement:.3f} (mean Jaccard similarity of words)")
        if self.missing:
            words = [f"{word!r} ({name})" for name, word in self.missing]
            lines.append(f"{len(words)} strings are not in their answers: {_some(words)}")
        if self.empty:
            lines.append(f"{len(self.empty)} samples have no unwanted word: {_some(self.empty)}")
        for reason, count in Counter(self.failed.values()).most_common():
            names = [name for name, why in self.failed.items() if why == reason]
            lines.append(f"{count} samples have no answer: {reason}: {_some(names)}")
        return lines

    def failure(self, stopped: str | None) -> str:
        """One line that says what is left to do and why."""
        done = f"{self.samples - len(self.failed)} of {self.samples} samples are done and kept; run it again to go on"
        if stopped:
            return f"{stopped} ({done})"
        name, reason = next(iter(self.failed.items()))
        return f"identifier.generative: {len(self.failed)} samples have no answer, e.g. {name}: {reason} ({done})"


def _some(names: tuple[str, ...] | list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
