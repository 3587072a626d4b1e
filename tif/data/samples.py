"""Samples, their spans of unwanted words, and the benchmark that holds the sets of samples.

Every reader in this room returns a Benchmark; everything else in tif starts from one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping

from tif.data.groups import group_of_id


@dataclasses.dataclass(frozen=True, order=True)
class Span:
    """Character offsets into a sample's answer: Unicode code points, `end` exclusive."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span: want 0 <= start < end, got start={self.start}, end={self.end}")


def merge_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same characters in sorted spans: overlapping or touching ones become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


def cut_spans(spans: Iterable[Span], start: int, end: int) -> tuple[Span, ...]:
    """Return the parts of the spans inside [start, end), counted from `start`."""
    inside = [span for span in spans if span.start < end and span.end > start]
    return tuple(Span(max(s.start, start) - start, min(s.end, end) - start) for s in inside)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question with its answer, or a prompt with its continuation.

    Attributes:
        id: stable name, unique within its benchmark; records are keyed by it.
        prompt: the bare question; `data.encoding` puts it into the template. "" for a document.
        answer: the text that is scored, trained on and forgotten; not empty.
        unwanted: sorted spans of unwanted words in `answer`. None: not identified yet.
        group: what it shares a subject with, as "author/7", where the data names it: see
            `subject`.
        paraphrased_prompt, paraphrased_answer: the same fact in other words, if the data has it.
        perturbed_answers: wrong answers of the same form (for TOFU's truth ratio), or the wrong
            options of a control question.
    """

    id: str
    prompt: str
    answer: str
    unwanted: tuple[Span, ...] | None = None
    group: str | None = None
    paraphrased_prompt: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.answer.strip():
            raise ValueError(f"sample {self.id}: the answer is empty")
        for span in self.unwanted or ():
            if span.end > len(self.answer):
                place, length = f"{span.start}:{span.end}", len(self.answer)
                raise ValueError(
                    f"sample {self.id}: span {place} ends after the answer ({length} characters)"
                )

    @property
    def subject(self) -> str | None:
        """Return the group of samples that share a subject; None = there is no other."""
        return self.group or group_of_id(self.id)


@dataclasses.dataclass(frozen=True)
class Task:
    """How a model is asked the samples of an evaluation set; None follows the configuration.

    Attributes:
        template: text with `{prompt}`, used as it is: answer or generation follow without a blank.
        prefix: text before the template, such as questions with their answers.
        new_tokens: tokens generated, greedily; 0 = nothing is generated.
        stops: texts that end a generation; it is cut before the first of them.
        answer_tokens: the answer is cut to this number of tokens before it is scored and compared.
        end_token: whether the end token counts as part of the answer.
    """

    template: str | None = None
    prefix: str = ""
    new_tokens: int | None = None
    stops: tuple[str, ...] = ()
    answer_tokens: int | None = None
    end_token: bool | None = None

    def cut(self, generation: str) -> str:
        """Return the generation up to the first of `stops`."""
        for stop in self.stops:
            generation = generation.split(stop)[0]
        return generation


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The data of one experiment.

    Attributes:
        name: reader and split, such as "tofu/forget05".
        forget: samples to unlearn.
        retain: samples to keep. Unlearning draws from them; the retain model is trained on them.
        sets: evaluation sets by name (forget, retain, real_authors, world_facts; MUSE has others),
            in the order of evaluation.
        background: further samples that target and retain models read, and unlearning does not
            draw from: MUSE's second retain part; the controls of `fictitious`, because a model
            built from scratch has read nothing.
        holdout: samples of the same kind as the forget samples that no model reads, for membership
            inference; () where there are none.
        tasks: by set, how its samples are asked where the configuration does not say.
        notes: what a user should know of the data before a run, one line each.
    """

    name: str
    forget: tuple[Sample, ...]
    retain: tuple[Sample, ...]
    sets: Mapping[str, tuple[Sample, ...]]
    background: tuple[Sample, ...] = ()
    holdout: tuple[Sample, ...] = ()
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def fingerprint(samples: Iterable[Sample]) -> str:
    """Return 16 hex digits of the samples' ids, texts and named groups in order; no spans."""
    digest = hashlib.sha256()
    for s in samples:
        paraphrase = (s.paraphrased_prompt, s.paraphrased_answer)
        texts = [s.id, s.prompt, s.answer, *paraphrase, s.perturbed_answers]
        texts += [s.group] if s.group else []
        digest.update(json.dumps(texts).encode() + b"\n")
    return digest.hexdigest()[:16]
