"""Samples as a benchmark's task asks them (MUSE's, and your own texts): prompts and answers."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from tif.data.encoding import Encoder
from tif.data.samples import Sample, Task, cut_spans
from tif.evaluation.questions import Question, label_answer

SAMPLES_PER_PREFIX = 16  # whose common beginning (ten examples, in KnowMem) runs once


def ask_task(
    encoder: Encoder,
    samples: Sequence[Sample],
    task: Task,
    context: int | None,
    new_tokens: int = 0,
) -> list[Question]:
    """Return the questions of a set, as its task asks them.

    Args:
        encoder: its template is used where the task has none.
        samples, task: of one set.
        context: tokens that the model can read at once, None = any number. A longer text loses its
            end, or, if something is generated after it, as much of its beginning as that takes.
        new_tokens: generated at most, where the task does not say.

    Raises:
        ValueError: If nothing of an answer is left to score.
    """
    if task.new_tokens is None:
        task = dataclasses.replace(task, new_tokens=new_tokens)
    questions = []
    for number, sample in enumerate(samples):
        text_id = sample.id
        if task.prefix:  # texts with one id share their beginning, see token_stats.score_texts
            text_id = f"{sample.id.rpartition('/')[0]}/{number // SAMPLES_PER_PREFIX}"
        questions.append(_ask(encoder, sample, task, context, text_id))
    return questions


def _ask(
    encoder: Encoder, sample: Sample, task: Task, context: int | None, text_id: str
) -> Question:
    answer = sample.answer
    if task.answer_tokens is not None:
        # As in muse_bench, a begin token counts.
        answer_ids = encoder.encode_text(answer)[: task.answer_tokens]
        answer = str(encoder.tokenizer.decode(answer_ids, skip_special_tokens=True))
    prompt, blank = _render_prompt(encoder, sample, task)
    new_tokens = task.new_tokens or 0
    prompt_ids = encoder.encode_text(prompt) if new_tokens else []
    ids, first = encoder.encode_pair(prompt + blank, answer)
    if task.end_token:
        ids = [*ids, encoder.get_end(sample.prompt if task.template is None else "")]
    if context is not None:
        prompt_ids = prompt_ids[max(0, len(prompt_ids) + new_tokens - context) :]
        lost = max(0, len(ids) - context) if new_tokens else 0
        ids, first = ids[lost:][:context], max(first - lost, 0)
    if len(ids) <= max(first, 1):
        raise ValueError(
            f"sample {sample.id}: nothing of its answer is left to score; "
            "want more than one token of text"
        )
    text = label_answer(text_id, ids, first)
    start = sample.answer.find(answer)  # -1: the tokenizer changes the text
    unwanted = sample.unwanted if start >= 0 else None
    unwanted = unwanted and cut_spans(unwanted, start, start + len(answer))
    sample = dataclasses.replace(sample, answer=answer, unwanted=unwanted)
    return Question(sample, prompt_ids, [text], new_tokens, task)


def _render_prompt(encoder: Encoder, sample: Sample, task: Task) -> tuple[str, str]:
    """Return the text before the answer, and the blank between them."""
    if task.template is not None:
        return task.prefix + task.template.replace("{prompt}", sample.prompt), ""
    prompt = task.prefix + encoder.render_prompt(sample.prompt)
    return prompt, encoder.format.blank if prompt else ""


def describe_task(task: Task) -> dict[str, Any]:
    """Return the fields of a task as records hold them, with a hash in the place of its prefix."""
    fields = dataclasses.asdict(task)
    prefix = fields.pop("prefix")
    fields["stops"] = list(task.stops)
    fields["examples"] = hashlib.sha256(prefix.encode()).hexdigest()[:12] if prefix else None
    return fields
