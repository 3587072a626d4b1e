"""The identifiers `gold`, `all`, `none` and `random`: no model, mostly controls of an ablation."""

import dataclasses
import random
from collections.abc import Sequence

from tif.config.identifier import Identifier
from tif.config.keys import key
from tif.data.samples import Sample, Span
from tif.data.templates import Prompts
from tif.identifiers.registration import identifier
from tif.identifiers.segmentation import find_words
from tif.identifiers.span_operations import join_neighbours


@dataclasses.dataclass
class RandomWords:
    """Chance: the control of an ablation."""

    share: float = key(0.3, "probability of each word to be unwanted", at_least=0, at_most=1)
    seed: int = key(0, "the draws of a sample come from (seed, its id) alone", at_least=0)


@identifier("gold", title="the data marks it")
def require_gold(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with the spans that the data came with.

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


@identifier("all", title="it stands in an answer (control)", is_control=True)
def mark_everything(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with every character unwanted: classic unlearning."""
    return tuple(
        dataclasses.replace(sample, unwanted=(Span(0, len(sample.answer)),)) for sample in samples
    )


@identifier("none", title="nothing is (control)", is_control=True)
def mark_nothing(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with no word unwanted."""
    return tuple(dataclasses.replace(sample, unwanted=()) for sample in samples)


@identifier(
    "random", title="a draw with probability `share` says so (control)", keys=RandomWords,
    is_control=True,
)  # fmt: skip
def mark_random_words(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with each word unwanted with probability `share`.

    The draws of a sample come from a generator of its own, seeded by (seed, its id): no global
    random state, and the same words whichever samples stand beside it.
    """
    settings = section.keys_of(RandomWords)
    identified = []
    for sample in samples:
        generator = random.Random(f"{settings.seed}/{sample.id}")
        drawn = [word for word in find_words(sample.answer) if generator.random() < settings.share]
        unwanted = join_neighbours(sample.answer, drawn)
        identified.append(dataclasses.replace(sample, unwanted=unwanted))
    return tuple(identified)
