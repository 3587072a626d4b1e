"""Evaluate a model: score its answers and let it answer, and return a record for each question.

Any number of processes gives the same records.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tif.config.evaluation import EvalRules
from tif.data.encoding import Encoder
from tif.data.samples import Sample, Task, fingerprint
from tif.evaluation.generate import Decoding, choose_mode, generate
from tif.evaluation.muse_prompts import ask_task, describe_task
from tif.evaluation.questions import (
    MUSE_PROTOCOL,
    EvaluationSetup,
    Question,
    only_scores,
    select_samples,
)
from tif.evaluation.tofu_prompts import ask_question, describe_joined_prompts, resolve_protocol
from tif.evaluation.token_stats import TextScore, score_texts
from tif.probes.text_length import read_context
from tif.records.protocols import VERSION
from tif.records.types import Evaluation, Record, RecordSet
from tif.scoring.token_scores import ModelContext
from tif.utils.hashing import hash_json
from tif.utils.terminal import console
from tif.utils.torch_state import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Original = ModelContext | None


@dataclasses.dataclass
class _Item:
    """A question of a set, with the scores of its texts and the generation once they are there."""

    set_name: str
    question: Question
    scores: Sequence[TextScore] = ()
    generation: str | None = None

    def is_finite(self) -> bool:
        return all(math.isfinite(score.loss) for score in self.scores)


def evaluate(
    model: "PreTrainedModel",
    sets: Mapping[str, Sequence[Sample]],
    setup: EvaluationSetup,
    name: str,
    epoch: int | None = None,
    original: Original = None,
) -> Evaluation:
    """Score every answer (original, paraphrased, perturbed) and generate one for every prompt.

    The model's mode is restored; its `name` and `epoch` go into the records. `original` opens the
    model that the policy was, on the same device, for KL; None = no KL.

    Raises:
        ValueError: If a prompt leaves no room for its answer.
        FloatingPointError: If a loss is not finite; names the samples.
    """
    context = read_context(model.config)
    selected = select_samples(sets, setup.rules, setup.tasks)
    items: list[_Item] = []
    for set_name, samples in selected.items():
        for question in build_questions(setup, set_name, samples, context):
            items.append(_Item(set_name, question))
    with evaluation_mode(model):
        _score(model, items, setup, original)
        broken = [item.question.sample.id for item in items if not item.is_finite()]
        if broken:
            raise FloatingPointError(
                f"loss is not finite in the evaluation of epoch {epoch} on {len(broken)} of "
                f"{len(items)} samples ({', '.join(broken[:3])}, ...). Try a lower optimizer.lr or "
                "trainer.precision=32-true."
            )
        _generate(model, items, setup)
    record_sets = {}
    for set_name, samples in selected.items():
        records = tuple(_make_record(item) for item in items if item.set_name == set_name)
        record_sets[set_name] = RecordSet(set_name, records, fingerprint(samples))
    protocol = describe_protocol(setup.rules, setup.encoder, setup.tasks, context)
    return Evaluation(name, record_sets, str(model.config.model_type), protocol, epoch)


def build_questions(
    setup: EvaluationSetup, set_name: str, samples: Sequence[Sample], context: int | None
) -> list[Question]:
    """Return the questions of a set, tokenised once for all epochs; `context` is the model's."""
    encoder, task = setup.encoder, setup.tasks.get(set_name)
    protocol = resolve_protocol(setup.rules, encoder)
    is_scored_only = only_scores(set_name, setup.rules)

    def build() -> list[Question]:
        if task:
            return ask_task(encoder, samples, task, context, protocol.max_new_tokens)
        questions = [ask_question(encoder, sample, protocol) for sample in samples]
        if is_scored_only:
            questions = [dataclasses.replace(item, max_new_tokens=0) for item in questions]
        warning = describe_joined_prompts(questions)
        if warning:
            encoder.compute_once("joined prompts", lambda: console.print(warning, soft_wrap=True))
        return questions

    key = f"{fingerprint(samples)} {protocol} {task} {context} {is_scored_only}"
    return encoder.compute_once(key, build)


def find_longest_text(
    setup: EvaluationSetup, sets: Mapping[str, Sequence[Sample]], context: int | None
) -> tuple[int, str]:
    """Return the tokens of the longest text that is scored or generated, and its sample's id."""
    longest = (0, "")
    for set_name, samples in select_samples(sets, setup.rules, setup.tasks).items():
        for question in build_questions(setup, set_name, samples, context):
            sizes = [len(text.input_ids) for text in question.texts]
            sizes.append(len(question.prompt_ids) + question.max_new_tokens)
            longest = max(longest, (max(sizes), question.sample.id))
    return longest


def describe_protocol(
    rules: EvalRules,
    encoder: Encoder,
    tasks: Mapping[str, Task] | None = None,
    context: int | None = None,
) -> dict[str, Any]:
    """Return the rules of an evaluation as records hold them; `context` is the model's."""
    protocol = dataclasses.asdict(resolve_protocol(rules, encoder))
    if not tasks:
        return protocol
    described: dict[str, Any] = {"name": MUSE_PROTOCOL, "decoding": "greedy", "context": context}
    described["rouge"] = "ROUGE-L F1 without stemming"
    described["version"] = VERSION
    described["tasks"] = {name: describe_task(task) for name, task in tasks.items()}
    for key in ("template", "chat", "prompt", "answer", "max_new_tokens", "max_samples"):
        described[key] = protocol[key]
    return described


def _score(
    model: "PreTrainedModel", items: list[_Item], setup: EvaluationSetup, original: Original
) -> None:
    texts, wants_stats = [], []
    for item in items:
        texts += item.question.texts
        # Of the other answers only the loss is needed.
        wants_stats += [True] + [False] * (len(item.question.texts) - 1)
    scores = score_texts(model, texts, wants_stats, setup, original)
    start = 0
    for item in items:
        end = start + len(item.question.texts)
        item.scores = scores[start:end]
        start = end


def _generate(model: "PreTrainedModel", items: list[_Item], setup: EvaluationSetup) -> None:
    answered = [item for item in items if item.question.max_new_tokens]
    prompts = [item.question.prompt_ids for item in answered]
    limits = [item.question.max_new_tokens for item in answered]
    if not answered:
        return
    encoder, dtype = setup.encoder, model.dtype
    key = f"mode {type(model).__name__} {dtype} {model.device} {hash_json(prompts)}"
    mode = encoder.compute_once(key, lambda: choose_mode(model, prompts))
    decoding = Decoding(setup.rules.tokens_per_batch, mode=mode)
    generations = generate(model, encoder, prompts, limits, decoding)
    for item, generation in zip(answered, generations, strict=True):
        task = item.question.task
        item.generation = (task.cut(generation) if task else generation).strip()


def _make_record(item: _Item) -> Record:
    sample, scores = item.question.sample, item.scores
    other_losses = [score.loss for score in scores[1:]]
    paraphrased_loss = other_losses.pop(0) if sample.paraphrased_answer is not None else None
    return Record(
        sample.id,
        sample.prompt,
        sample.answer,
        loss=scores[0].loss,
        tokens=scores[0].tokens,
        paraphrased_loss=paraphrased_loss,
        perturbed_losses=tuple(other_losses),
        generated=item.generation,
        stats=scores[0].stats,
        group=sample.subject,
    )
