"""Samples, their spans of unwanted words, and the benchmark that holds the sets of samples.

Every reader in this room returns a Benchmark; everything else in tif starts from one.
"""

import dataclasses
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping

# A group is what shares a subject, "<unit>/<name>" as "author/198": the unit of every interval,
# test and split, because questions about one author are not independent.
QUESTIONS_OF_AUTHOR = 20  # of TOFU, one after the other
# Form of a sample's id -> unit; the first parenthesis is the group's name.
FORMS = {
    r"fictitious/author(\d+)/.*": "author",
    r"lume/(.*)(?:sc|qa)\d+": "document",
    r"((?:verbmem|privleak)_[a-z]+/\d+)": "document",  # of MUSE: a passage is a row
    r"((?:forget|retain|holdout)/\d+)/\d+": "document",  # passages of one's own documents
}


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


def group_of_id(sample_id: str) -> str | None:
    """Return the group that a sample's id says; None where it says none."""
    match = re.fullmatch(r"tofu/(?:(holdout\d+)/)?(\d+)", sample_id)
    if match:
        return author_of_row(int(match[2]), match[1])
    for form, unit in FORMS.items():
        match = re.fullmatch(form, sample_id, re.DOTALL)
        if match:
            return f"{unit}/{match[1]}"
    return None


def author_of_row(row: int, split: str | None = None) -> str:
    """Return the group of a row of TOFU, counted from an author's first question."""
    number = str(row // QUESTIONS_OF_AUTHOR)
    return "/".join(filter(None, ("author", split, number)))


def select_training_samples(
    benchmark: Benchmark, train: str, request: str | None = None
) -> tuple[Sample, ...]:
    """Return what is trained on by key `data.train`.

    "forget" is unlearning: of the forget set, or of its samples whose ids match `request`, a
    pattern as of file names. "retain" makes a retain model, "full" a target model.
    """
    if train == "forget":
        chosen = request or "*"
        return tuple(s for s in benchmark.forget if fnmatch.fnmatchcase(s.id, chosen))
    samples = benchmark.background + benchmark.retain
    return samples + benchmark.forget if train == "full" else samples


def fingerprint(samples: Iterable[Sample]) -> str:
    """Return 16 hex digits of the samples' ids, texts and named groups in order; no spans."""
    digest = hashlib.sha256()
    for s in samples:
        paraphrase = (s.paraphrased_prompt, s.paraphrased_answer)
        texts = [s.id, s.prompt, s.answer, *paraphrase, s.perturbed_answers]
        texts += [s.group] if s.group else []
        digest.update(json.dumps(texts).encode() + b"\n")
    return digest.hexdigest()[:16]
