"""The controls of an ablation: gold, all, none, random."""

import dataclasses
import random
from collections.abc import Sequence

from tif.data.samples import Sample, Span
from tif.identifiers.words import joined, words


def gold(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The spans that the data came with.

    Raises:
        ValueError: If it came without.
    """
    if any(s.unwanted is None for s in samples):
        raise ValueError("identifier.kind: gold, but this benchmark has no gold spans; want another kind")
    return tuple(samples)


def everything(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Every token of the answer is unwanted: classic unlearning."""
    return tuple(dataclasses.replace(s, unwanted=(Span(0, len(s.answer)),)) for s in samples)


def nothing(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """No word is unwanted."""
    return tuple(dataclasses.replace(s, unwanted=()) for s in samples)


def random_words(samples: Sequence[Sample], share: float, seed: int) -> tuple[Sample, ...]:
    """Each word is unwanted with probability `share`.

    The draws of a sample come from a generator of its own, seeded by (seed, its id): no global random state, and the
    same words in whatever company the sample is.
    """
    found = []
    for s in samples:
        own = random.Random(f"{seed}/{s.id}")
        drawn = (word for word in words(s.answer) if own.random() < share)
        found.append(dataclasses.replace(s, unwanted=joined(s.answer, drawn)))
    return tuple(found)
