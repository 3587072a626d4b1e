"""What every reader produces and everything else consumes: samples, spans, and the sets of one benchmark."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping


@dataclasses.dataclass(frozen=True, order=True)
class Span:
    """Character offsets into a sample's answer: Unicode code points, `end` exclusive.

    Raises:
        ValueError: If the span is empty or starts before 0.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span: want 0 <= start < end, got start={self.start}, end={self.end}")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question with its answer (or a prompt with its continuation).

    Attributes:
        id: stable name, unique within its benchmark; records are keyed by it.
        prompt: the bare question; `encode.py` puts it into the template.
        answer: the text that is scored, trained on and forgotten.
        unwanted: sorted spans of unwanted words in `answer`; empty = nothing is unwanted, None = not identified yet.
        paraphrased_prompt, paraphrased_answer: the same fact in other words, where the benchmark has it.
        perturbed_answers: wrong answers of the same form (TOFU's truth ratio; the wrong options of a control).
    """

    id: str
    prompt: str
    answer: str
    unwanted: tuple[Span, ...] | None = None
    paraphrased_prompt: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise ValueError(f"sample {self.id}: the answer is empty")
        for span in self.unwanted or ():
            if span.end > len(self.answer):
                raise ValueError(
                    f"sample {self.id}: span {span.start}:{span.end} ends after the answer "
                    f"({len(self.answer)} characters)"
                )


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The data of one experiment.

    Attributes:
        name: which reader and split made it, e.g. "tofu/forget05".
        forget: samples to unlearn.
        retain: samples to keep, drawn from while unlearning; the retain model is trained on them.
        sets: evaluation sets by name (forget, retain, real_authors, world_facts), in evaluation order.
        background: what a base model knows before it meets the benchmark. Empty for real data; `fictitious` puts its
            controls here, because a model built from scratch has read nothing.
    """

    name: str
    forget: tuple[Sample, ...]
    retain: tuple[Sample, ...]
    sets: Mapping[str, tuple[Sample, ...]]
    background: tuple[Sample, ...] = ()


def fingerprint(samples: Iterable[Sample]) -> str:
    """Sixteen hex digits of the samples' ids and texts, not of their spans: equal means the same questions in order."""
    digest = hashlib.sha256()
    for s in samples:
        texts = (s.id, s.prompt, s.answer, s.paraphrased_prompt, s.paraphrased_answer, s.perturbed_answers)
        digest.update(json.dumps(texts).encode() + b"\n")
    return digest.hexdigest()[:16]
