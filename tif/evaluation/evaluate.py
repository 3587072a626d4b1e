"""Model and samples to per-sample records: answers scored, answers generated, by any number of processes."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tif.config.schema import EvalRules
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample, Task, fingerprint
from tif.evaluation.generate import by_length, generate
from tif.evaluation.muse_prompts import Asked, ask, limit
from tif.evaluation.muse_prompts import rules as rules_of
from tif.evaluation.token_stats import Answer, score
from tif.records.protocols import PROTOCOLS, Protocol
from tif.records.types import PARAPHRASED, Evaluation, Record, RecordSet, TokenStats
from tif.scoring.packing import cut_into_rows, packed_tokens
from tif.scoring.token_scores import ModelContext
from tif.utils.torch_state import evaluation_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def evaluate(
    model: "PreTrainedModel",
    encoder: Encoder,
    sets: Mapping[str, Sequence[Sample]],
    cfg: EvalRules,
    batching: str,
    name: str,
    epoch: int | None = None,
    original: ModelContext | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> Evaluation:
    """Score every answer (original, paraphrased, perturbed) of every set and generate one for every prompt.

    With several processes each does a share and all get the same records, those of one process.

    Args:
        model: a causal LM; evaluated as it is, its mode restored.
        sets: evaluation sets by name, cut to what `cfg` and its protocol want.
        batching: "packed" or "padded", see scoring.token_scores.
        name, epoch: go into the records.
        original: opens the model that the policy was, on the same device, for KL; None = no KL.
        tasks: of sets that are asked by rules of their own, see samples.Task.

    Raises:
        ValueError: If a prompt leaves no room for its answer.
        FloatingPointError: If a loss is not finite; names the samples.
    """
    used, context = cut(sets, cfg, tasks), getattr(model.config, "max_position_embeddings", None)
    asked = [one for name, own in used.items() for one in _asked(encoder, name, own, cfg, tasks, context)]
    # The original answer token by token; of the others only the sum is needed.
    detailed = [i == 0 for one in asked for i in range(len(one.texts))]
    flat = [e for one in asked for e in one.texts]
    spoken = [one for one in asked if one.new_tokens]
    with evaluation_mode(model):
        answers = iter(scored(model, flat, detailed, encoder.pad_id, cfg.tokens_per_batch, batching, original))
        found = [[next(answers) for _ in one.texts] for one in asked]
        broken = [
            one.sample.id for one, own in zip(asked, found, strict=True) if not all(math.isfinite(a.loss) for a in own)
        ]
        if broken:
            raise FloatingPointError(
                f"loss is not finite in the evaluation of epoch {epoch} on {len(broken)} of {len(asked)} samples "
                f"({', '.join(broken[:3])}, ...). Try a lower optimizer.lr or trainer.precision=32-true."
            )
        limits = [one.new_tokens for one in spoken]
        said = iter(generate(model, encoder, [one.prompt for one in spoken], limits, cfg.tokens_per_batch))
    generated = [next(said) if one.new_tokens else None for one in asked]
    records = iter([_record(*row) for row in zip(asked, found, generated, strict=True)])
    return Evaluation(
        model=name,
        sets={s: RecordSet(s, tuple(next(records) for _ in own), fingerprint(own)) for s, own in used.items()},
        family=str(model.config.model_type),
        protocol=described(cfg, encoder, tasks, context),
        epoch=epoch,
    )


def cut(
    sets: Mapping[str, Sequence[Sample]], cfg: EvalRules, tasks: Mapping[str, Task] | None = None
) -> dict[str, tuple[Sample, ...]]:
    """The first samples of each set, as many as `eval.max_samples` or else the protocol says.

    With `eval.paraphrased_questions` each set whose samples have a paraphrased question is there once more, as
    <name>_paraphrased: that question with the same answers.
    """
    found = {}
    for name, samples in sets.items():
        if tasks and name in tasks:
            found[name] = tuple(samples[: limit(name, cfg.max_samples)])
            continue
        own = tuple(samples[: getattr(cfg.max_samples, name, None) or PROTOCOLS[cfg.protocol].questions])
        found[name] = own
        if cfg.paraphrased_questions and (other := tuple(_paraphrased(s) for s in own if s.paraphrased_prompt)):
            found[name + PARAPHRASED] = other
    return found


def _paraphrased(sample: Sample) -> Sample:
    assert sample.paraphrased_prompt
    return dataclasses.replace(sample, id=f"{sample.id}/paraphrased", prompt=sample.paraphrased_prompt)


def protocol(cfg: EvalRules, encoder: Encoder) -> Protocol:
    """The rules behind the records; records made by other rules are not compared."""
    own = PROTOCOLS[cfg.protocol]
    return dataclasses.replace(
        own,
        max_new_tokens=cfg.max_new_tokens or own.max_new_tokens,
        template=encoder.template,
        max_samples=dataclasses.asdict(cfg.max_samples),
    )


def described(
    cfg: EvalRules, encoder: Encoder, tasks: Mapping[str, Task] | None = None, context: int | None = None
) -> dict[str, Any]:
    """The protocol as records hold it."""
    rules = protocol(cfg, encoder)
    if tasks:
        return rules_of(tasks, cfg.max_samples, context, encoder.template, rules.max_new_tokens)
    return dataclasses.asdict(rules)


def _asked(
    encoder: Encoder,
    name: str,
    samples: Sequence[Sample],
    cfg: EvalRules,
    tasks: Mapping[str, Task] | None,
    context: int | None,
) -> list[Asked]:
    """The samples of a set, ready for the model; tokenised once."""
    rules, task = protocol(cfg, encoder), (tasks or {}).get(name)

    def made() -> list[Asked]:
        if task:
            return ask(encoder, samples, task, context, rules.max_new_tokens)
        found = []
        for sample in samples:
            prompt = encoder.encode_text(_prompt(encoder, sample, rules))
            new_tokens = max(rules.max_new_tokens - rules.prompt_counts * len(prompt), 1)
            found.append(Asked(sample, prompt, _answers(encoder, sample, rules), new_tokens))
        return found

    return encoder.compute_once(f"{fingerprint(samples)} {rules} {task} {context}", made)


def encode(encoder: Encoder, sample: Sample, rules: Protocol, answer: str | None = None) -> Encoded:
    """The sample's prompt with its answer (or another) as the protocol scores it: cut, and labelled from the border.

    Raises:
        ValueError: If the prompt leaves no room for an answer.
    """
    whole = encoder.encode(sample, answer=sample.answer if answer is None else answer)  # nothing is unwanted then
    ids = whole.input_ids[:-1]
    first = len(encoder.encode_text(_prompt(encoder, sample, rules)))
    if first >= rules.max_tokens:
        raise ValueError(
            f"sample {sample.id}: its prompt has {first} tokens, and {rules.name} scores the first {rules.max_tokens} "
            "of prompt and answer together; want a shorter prompt"
        )
    if rules.answer_tag == "prompt":
        first = max(first, whole.gw.index(True))  # a blank that is a token of its own opens no answer
    kept = ids[: rules.max_tokens]
    if len(kept) < rules.max_tokens or rules.end_after_cut:
        kept = [*kept, encoder.eos_id]
    return Encoded(sample.id, kept, [False] * len(kept), [t >= first for t in range(len(kept))])


def _prompt(encoder: Encoder, sample: Sample, rules: Protocol) -> str:
    """The text before what the protocol scores and generates."""
    text = encoder.render_prompt(sample.prompt)
    if rules.answer_tag == "answer" and text and encoder.template != "chat":
        tag = encoder.template.rpartition("\n")[2]
        return text if "{prompt}" in tag else text.removesuffix(tag)
    return text


def _answers(encoder: Encoder, sample: Sample, rules: Protocol) -> list[Encoded]:
    """Original, paraphrased (where there is one) and perturbed answers, in this order."""
    others = [a for a in (sample.paraphrased_answer, *sample.perturbed_answers) if a is not None]
    return [encode(encoder, sample, rules, answer) for answer in (None, *others)]


def _record(asked: Asked, answers: list[Answer], generated: str | None) -> Record:
    sample = asked.sample
    if generated is not None:
        generated = (asked.task.cut(generated) if asked.task else generated).strip()
    first = 1 if sample.paraphrased_answer is None else 2
    return Record(
        id=sample.id,
        prompt=sample.prompt,
        answer=sample.answer,
        loss=answers[0].loss,
        tokens=answers[0].tokens,
        paraphrased_loss=answers[1].loss if first == 2 else None,
        perturbed_losses=tuple(a.loss for a in answers[first:]),
        generated=generated,
        stats=answers[0].stats,
    )


def token_stats(
    model: "PreTrainedModel",
    texts: Sequence[Encoded],
    pad_id: int,
    tokens_per_batch: int,
    batching: str,
    original: ModelContext | None = None,
) -> list[TokenStats]:
    """Log-probability, argmax, mean and standard deviation of log p, and KL, of each answer token of any texts.

    A text's first token has nothing before it and is not scored. Shared out to all processes.

    Args:
        model: a causal LM; its mode is restored.
        texts: an `encode`d sample, or a document (an empty prompt); no longer than the model's context.
        pad_id, tokens_per_batch, batching, original: as for `scored`.
    """
    with evaluation_mode(model):
        answers = scored(model, texts, [True] * len(texts), pad_id, tokens_per_batch, batching, original)
    return [answer.stats for answer in answers if answer.stats]


def scored(
    model: "PreTrainedModel",
    texts: Sequence[Encoded],
    detailed: Sequence[bool],
    pad_id: int,
    tokens_per_batch: int,
    batching: str,
    original: ModelContext | None = None,
) -> list[Answer]:
    """Score texts in batches of similar lengths, shared out to all processes.

    Packed: consecutive texts with the same id are a sample's answers to one prompt, which runs once for all of them.

    Args:
        model: a causal LM in evaluation mode, without gradients.
        texts: with an answer token at a position > 0.
        detailed: whose `stats` are wanted.
        pad_id: padding's id.
        tokens_per_batch: tokens of one forward, with padding.
        batching: "packed" or "padded".
        original: opens the model that `stats.kl` compares with, on the same device; None = no KL.
    """
    groups = [[i] for i in range(len(texts))]
    if batching == "packed":
        groups = [list(own) for _, own in itertools.groupby(range(len(texts)), lambda i: texts[i].id)]
        limit = min(tokens_per_batch, packed_tokens(model.device))
        sizes = [sum(len(texts[i].input_ids) for i in own) for own in groups]
        order = sorted(range(len(groups)), key=lambda g: -sizes[g])
        runs = [order[first:last] for first, last in cut_into_rows([sizes[g] for g in order], limit)]
    else:
        runs = list(by_length([len(e.input_ids) for e in texts], tokens_per_batch))
    batches = {groups[run[0]][0]: [groups[g] for g in run] for run in runs}  # by their first text

    def work(index: Sequence[int]) -> list[Answer]:
        parts = [[texts[i] for i in own] for own in batches[index[0]]]
        return score(model, parts, [detailed[i] for i in index], batching, pad_id, original)

    flat = [[i for own in batch for i in own] for batch in batches.values()]
    return share_work(flat, work, "scoring answers", model)
