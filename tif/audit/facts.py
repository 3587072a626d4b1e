"""Unwanted spans as facts that an answer states or does not: string match after normalising.

No judge is needed, and none can err; but a fact in other words is missed, and a short one ("12")
may stand in an answer by chance. The retain model's answers show how often chance does that.
"""

import unicodedata
from collections.abc import Iterable, Sequence

import regex

from tif.data.samples import Sample, Span
from tif.identifiers.segmentation import UNSPACED

_WORD = regex.compile(rf"(?V1)[{UNSPACED}]|[\w--[{UNSPACED}]]+")


def normalise(text: str) -> str:
    """Return the text's words without case, punctuation and variants of one character (NFKC).

    In scripts without blanks, each character is a word.
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def states(text: str, fact: str) -> bool:
    """Return whether a text contains the words of a normalised fact, whole and in their order."""
    return f" {fact} " in f" {normalise(text)} "


def list_facts(sample: Sample, after: int = 0) -> tuple[str, ...]:
    """Return the sample's unwanted spans, normalised, each once.

    Left out is what the question says already, and what the answer's first `after` characters say
    or begin.
    """
    given = f"{sample.prompt}\n{sample.answer[:after]}"
    facts = []
    for span in _spans(sample):
        fact = normalise(sample.answer[span.start : span.end])
        if fact and span.start >= after and not states(given, fact):
            facts.append(fact)
    return tuple(dict.fromkeys(facts))


def keep_facts(sample: Sample) -> tuple[Span, ...]:
    """Return the unwanted spans that state a fact which the question does not say."""
    facts = list_facts(sample)
    spans = []
    for span in _spans(sample):
        if normalise(sample.answer[span.start : span.end]) in facts:
            spans.append(span)
    return tuple(spans)


def find_first_fact(sample: Sample) -> int | None:
    """Return where the answer's first fact begins, in characters; None where it has none."""
    spans = keep_facts(sample)
    return spans[0].start if spans else None


def share_stated(text: str, facts: Sequence[str]) -> float | None:
    """Return which share of the facts a text states; None of no facts."""
    return sum(states(text, fact) for fact in facts) / len(facts) if facts else None


def largest(values: Iterable[float | None]) -> float | None:
    """Return the largest of the values that are there."""
    return max((value for value in values if value is not None), default=None)


def _spans(sample: Sample) -> tuple[Span, ...]:
    return sample.unwanted or ()
