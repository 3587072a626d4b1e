"""Unwanted spans as facts that an answer states or does not: string match after normalising.

No judge is needed, and none can err; but a fact in other words is missed, and a short one ("12")
may stand in an answer by chance. The retain model's answers show how often chance does that.
"""

from collections.abc import Sequence

from tif.data.samples import Sample, Span
from tif.identifiers.segmentation import normalise, states


def find_facts(sample: Sample, after: int = 0) -> list[tuple[str, Span]]:
    """Return the sample's unwanted spans, each with its normalised text.

    Left out is what the question says already, and what the answer's first `after` characters say
    or begin.
    """
    given = f"{sample.prompt}\n{sample.answer[:after]}"
    facts = []
    for span in sample.unwanted or ():
        fact = normalise(sample.answer[span.start : span.end])
        if fact and span.start >= after and not states(given, fact):
            facts.append((fact, span))
    return facts


def list_facts(sample: Sample, after: int = 0) -> tuple[str, ...]:
    """Return the normalised texts of `find_facts`, each once."""
    return tuple(dict.fromkeys(fact for fact, _ in find_facts(sample, after)))


def find_first_fact(sample: Sample) -> int | None:
    """Return where the answer's first fact begins, in characters; None where it has none."""
    return next((span.start for _, span in find_facts(sample)), None)


def share_stated(text: str, facts: Sequence[str]) -> float | None:
    """Return which share of the facts a text states; None of no facts."""
    return sum(states(text, fact) for fact in facts) / len(facts) if facts else None
