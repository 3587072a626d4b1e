"""`kind: gold, all, none, random`: the controls of an ablation, which need no model.

Called by `identify` of this room.
"""

import dataclasses
import random
from collections.abc import Sequence

from tif.config.identifier import RandomWords
from tif.data.samples import Sample, Span
from tif.identifiers.span_operations import join_neighbours
from tif.identifiers.words import find_words


def require_gold(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples as they are: with the spans that the data came with.

    Raises:
        ValueError: If it came without.
    """
    if any(sample.unwanted is None for sample in samples):
        raise ValueError(
            "identifier.kind: gold, but this benchmark has no gold spans; want another kind"
        )
    return tuple(samples)


def mark_everything(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples with every character unwanted: classic unlearning."""
    return tuple(
        dataclasses.replace(sample, unwanted=(Span(0, len(sample.answer)),)) for sample in samples
    )


def mark_nothing(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples with no word unwanted."""
    return tuple(dataclasses.replace(sample, unwanted=()) for sample in samples)


def mark_random_words(settings: RandomWords, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples with each word unwanted with probability `settings.share`.

    The draws of a sample come from a generator of its own, seeded by (seed, its id): no global
    random state, and the same words whichever samples stand beside it.
    """
    identified = []
    for sample in samples:
        generator = random.Random(f"{settings.seed}/{sample.id}")
        drawn = [word for word in find_words(sample.answer) if generator.random() < settings.share]
        unwanted = join_neighbours(sample.answer, drawn)
        identified.append(dataclasses.replace(sample, unwanted=unwanted))
    return tuple(identified)
