"""Samples as the tasks of a benchmark ask them (MUSE's, and texts of one's own): prompts, answers, rules."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from tif.config.schema import MaxSamples
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample, Task

PROTOCOL = "muse"
TOGETHER = 16  # samples of a set whose common beginning (ten examples, in KnowMem) runs once


@dataclasses.dataclass(frozen=True)
class Asked:
    """One sample, ready for the model.

    Attributes:
        sample: with its answer as it is scored and compared.
        prompt: token ids to generate from.
        texts: prompt and answer, for each answer that is scored; the original first.
        new_tokens: generated at most; 0 = nothing is generated.
        task: what ends the generation; None = the end token alone.
    """

    sample: Sample
    prompt: list[int]
    texts: list[Encoded]
    new_tokens: int
    task: Task | None = None


def ask(
    encoder: Encoder, samples: Iterable[Sample], task: Task, context: int | None, new_tokens: int = 0
) -> list[Asked]:
    """Encode the samples of a set as its task says.

    Args:
        encoder: its template serves where the task has none.
        samples: of one set.
        task: of that set.
        new_tokens: generated, where the task does not say.
        context: tokens that the model can read at once, None = any number. A text that is longer loses its end, or, if
            something is generated after it, as much of its beginning as that takes.
    """
    if task.new_tokens is None:
        task = dataclasses.replace(task, new_tokens=new_tokens)
    return [_ask(encoder, sample, task, context, number // TOGETHER) for number, sample in enumerate(samples)]


def _ask(encoder: Encoder, sample: Sample, task: Task, context: int | None, group: int) -> Asked:
    answer = sample.answer
    if task.answer_tokens is not None:
        kept = encoder.encode_text(answer)[: task.answer_tokens]  # a begin token counts, as in muse_bench
        answer = str(encoder.tokenizer.decode(kept, skip_special_tokens=True))
    if task.template is None:
        before = task.prefix + encoder.render_prompt(sample.prompt)
        blank = " " if before and encoder.template != "chat" else ""
    else:
        before, blank = task.prefix + task.template.replace("{prompt}", sample.prompt), ""
    new_tokens = task.new_tokens or 0
    prompt = encoder.encode_text(before) if new_tokens else []
    ids, first = encoder.encode_pair(before + blank, answer)
    ids += [encoder.eos_id] if task.end_token else []
    if context is not None:
        prompt = prompt[max(0, len(prompt) + new_tokens - context) :]
        lost = max(0, len(ids) - context) if new_tokens else 0
        ids, first = ids[lost:][:context], max(first - lost, 0)
    if len(ids) <= max(first, 1):
        raise ValueError(
            f"sample {sample.id}: nothing of its answer is left to score; want more than one token of text"
        )
    name = f"{sample.id.rpartition('/')[0]}/{group}" if task.prefix else sample.id
    text = Encoded(name, ids, [False] * len(ids), [t >= first for t in range(len(ids))])
    return Asked(dataclasses.replace(sample, answer=answer), prompt, [text], new_tokens, task)


def limit(name: str, wanted: MaxSamples) -> int | None:
    """How many samples of a set `eval.max_samples` wants: `retain` is for *_retain, `forget` for the other sets."""
    return wanted.retain if name.endswith("_retain") else wanted.forget


def rules(
    tasks: Mapping[str, Task], wanted: MaxSamples, context: int | None, template: str, new_tokens: int
) -> dict[str, Any]:
    """What the records of these sets say of their making."""
    return {
        "name": PROTOCOL,
        "decoding": "greedy",
        "rouge": "ROUGE-L F1 without stemming",
        "context": context,
        "template": template,
        "max_new_tokens": new_tokens,
        "tasks": {name: _described(task) for name, task in tasks.items()},
        "max_samples": dataclasses.asdict(wanted),
    }


def _described(task: Task) -> dict[str, Any]:
    examples = hashlib.sha256(task.prefix.encode()).hexdigest()[:12] if task.prefix else None
    fields = dataclasses.asdict(task) | {"stops": list(task.stops), "examples": examples}
    return {name: value for name, value in fields.items() if name != "prefix"}
