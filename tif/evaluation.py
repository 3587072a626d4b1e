"""Model and samples to per-sample records: answers scored, answers generated."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tif.data.encode import Encoded, Encoder, collate
from tif.data.samples import Sample, fingerprint
from tif.models import frozen, to_device
from tif.records import Evaluation, Record, RecordSet
from tif.schema import Eval
from tif.scoring import answer_logprobs, packed_tokens, rows, token_scores
from tif.terminal import bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROTOCOL = "open-unlearning"


def evaluate(
    model: "PreTrainedModel",
    encoder: Encoder,
    sets: Mapping[str, Sequence[Sample]],
    cfg: Eval,
    batching: str,
    name: str,
    epoch: int | None = None,
) -> Evaluation:
    """Score every answer (original, paraphrased, perturbed) of every set and generate one for every prompt.

    Args:
        model: a causal LM; evaluated as it is, its mode restored.
        sets: evaluation sets by name, cut to the first `cfg.max_samples` of each.
        batching: "packed" or "padded", see scoring.token_scores.
        name, epoch: go into the records.
    """
    used = cut(sets, cfg)
    samples = [s for found in used.values() for s in found]
    texts = [_answers(encoder, s) for s in samples]
    flat = [e for own in texts for e in own]
    prompts = [encoder.prompt_ids(s.prompt) for s in samples]
    with frozen(model):
        losses = iter(answer_losses(model, flat, encoder.pad_id, cfg.tokens_per_batch, batching))
        scored = [[next(losses) for _ in own] for own in texts]
        generated = generate(model, encoder, prompts, cfg.max_new_tokens, cfg.tokens_per_batch)
    broken = [s.id for s, own in zip(samples, scored, strict=True) if not all(math.isfinite(loss) for loss, _ in own)]
    if broken:
        raise FloatingPointError(
            f"loss is not finite in the evaluation of epoch {epoch} on {len(broken)} of {len(samples)} samples "
            f"({', '.join(broken[:3])}, ...). Try a lower optimizer.lr or trainer.precision=32-true."
        )
    records = iter([_record(*row) for row in zip(samples, scored, generated, strict=True)])
    return Evaluation(
        model=name,
        sets={s: RecordSet(s, tuple(next(records) for _ in found), fingerprint(found)) for s, found in used.items()},
        family=str(model.config.model_type),
        protocol=protocol(cfg, encoder),
        epoch=epoch,
    )


def cut(sets: Mapping[str, Sequence[Sample]], cfg: Eval) -> dict[str, tuple[Sample, ...]]:
    """The first `eval.max_samples` of each set."""
    return {name: tuple(samples[: getattr(cfg.max_samples, name, None)]) for name, samples in sets.items()}


def protocol(cfg: Eval, encoder: Encoder) -> dict[str, Any]:
    """The rules behind the records; records made by other rules are not compared.

    The rules are open-unlearning's (locuslab/open-unlearning d3d7cf9: end token scored, geometric truth ratio, greedy
    generation of 200 new tokens, all questions) up to what the numbers here say.
    """
    return {
        "name": PROTOCOL,
        "template": encoder.template,
        "max_new_tokens": cfg.max_new_tokens,
        "max_samples": dataclasses.asdict(cfg.max_samples),
    }


def _answers(encoder: Encoder, sample: Sample) -> list[Encoded]:
    """Original, paraphrased (where there is one) and perturbed answers, in this order."""
    others = [a for a in (sample.paraphrased_answer, *sample.perturbed_answers) if a is not None]
    return [encoder.encode(sample), *(encoder.encode(sample, answer=a) for a in others)]


def _record(sample: Sample, scored: list[tuple[float, int]], generated: str) -> Record:
    first = 1 if sample.paraphrased_answer is None else 2
    return Record(
        id=sample.id,
        prompt=sample.prompt,
        answer=sample.answer,
        loss=scored[0][0],
        tokens=scored[0][1],
        paraphrased_loss=scored[1][0] if first == 2 else None,
        perturbed_losses=tuple(loss for loss, _ in scored[first:]),
        generated=generated,
    )


def answer_losses(
    model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int, tokens_per_batch: int, batching: str
) -> list[tuple[float, int]]:
    """Mean negative log-likelihood of an answer token (nats; end token counted) and number of tokens, for each text.

    Packed: consecutive texts with the same id are a sample's answers to one prompt, which runs once for all of them.
    """
    found: dict[int, tuple[float, int]] = {}
    with bar("scoring answers", len(texts)) as line, torch.no_grad():
        for index, sums, counts in (_packed if batching == "packed" else _padded)(
            model, texts, pad_id, tokens_per_batch
        ):
            found |= {i: (-s / n, n) for i, s, n in zip(index, sums, counts, strict=True)}
            line.advance(len(index))
    return [found[i] for i in range(len(texts))]


Sums = Iterator[tuple[list[int], list[float], list[int]]]  # texts, their summed log-probabilities, their answer tokens


def _packed(model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int, tokens_per_batch: int) -> Sums:
    groups = [list(own) for _, own in itertools.groupby(range(len(texts)), lambda i: texts[i].id)]
    sizes = [sum(len(texts[i].input_ids) for i in own) for own in groups]
    limit = min(tokens_per_batch, packed_tokens(model.device))
    for first, last in rows(sizes, limit):
        logprobs = answer_logprobs(model, [[texts[i] for i in own] for own in groups[first:last]])
        flat = [t.double().sum() for own in logprobs for t in own]
        index = [i for own in groups[first:last] for i in own]
        yield index, torch.stack(flat).tolist(), [len(t) for own in logprobs for t in own]


def _padded(model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int, tokens_per_batch: int) -> Sums:
    for index in _batches([len(e.input_ids) for e in texts], tokens_per_batch):
        batch = to_device(collate([texts[i] for i in index], index, pad_id), model.device)
        scores = token_scores(model, batch, "padded")
        yield index, scores.logprob.double().sum(1).tolist(), batch.answer[:, 1:].sum(1).tolist()


def generate(
    model: "PreTrainedModel",
    encoder: Encoder,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    tokens_per_batch: int,
) -> list[str]:
    """Greedy continuations of the prompts, without the end token, stripped of blanks at both ends."""
    found: dict[int, str] = {}
    with bar("generating answers", len(prompts)) as line:
        for index in _batches([len(p) + max_new_tokens for p in prompts], tokens_per_batch):
            rows = _greedy(model, [prompts[i] for i in index], encoder.eos_id, max_new_tokens)
            for i, row in zip(index, rows, strict=True):
                found[i] = str(encoder.tokenizer.decode(row, skip_special_tokens=True)).strip()
            line.advance(len(index))
    return [found[i] for i in range(len(prompts))]


def _greedy(model: "PreTrainedModel", prompts: list[list[int]], eos_id: int, max_new_tokens: int) -> list[list[int]]:
    """Greedy decoding of left-padded prompts with a key-value cache; finished rows leave the batch."""
    from transformers import DynamicCache

    width, device = max(map(len, prompts)), model.device
    ids = torch.tensor([[eos_id] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    cache, rows = DynamicCache(config=model.config), torch.arange(len(prompts), device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad():
        for _ in range(max_new_tokens):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = output.logits[:, -1].float().argmax(1)
            going = (chosen != eos_id).nonzero()[:, 0]
            for row, token in zip(rows[going].tolist(), chosen[going].tolist(), strict=True):
                answers[row].append(token)
            if not len(going):
                break
            if len(going) < len(rows):
                cache.batch_select_indices(going)
                rows, mask, chosen = rows[going], mask[going], chosen[going]
            ids, mask = chosen[:, None], torch.cat([mask, torch.ones_like(chosen)[:, None]], 1)
    return answers


def _batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices in batches of at most `tokens_per_batch` (one text at least), similar lengths together, longest first.

    Longest first: a batch that does not fit the memory shows at once.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_per_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
