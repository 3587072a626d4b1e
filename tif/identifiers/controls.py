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
    unmarked = [sample.id for sample in samples if sample.unwanted is None]
    if unmarked:
        raise ValueError(
            f"identifier.kind: gold, but {len(unmarked)} of {len(samples)} forget samples came "
            f"without unwanted words (first: {unmarked[0]}). Mark them in the data, or want "
            "words (identifier.kind=words identifier.words=[...] or identifier.patterns="
            "[email,phone]), masked_lm (identifier.kind=masked_lm: a small model, downloaded) or "
            "generative (identifier.kind=generative identifier.generative.model=NAME: an LLM "
            "behind an API)"
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
