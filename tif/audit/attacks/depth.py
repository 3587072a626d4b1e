"""Depth: how much of the facts can still be read inside the model, whatever it says.

Activation patching: at the positions that predict the facts' tokens, the output of one block of the
target model is replaced by that of another model for the same text. Where the target model then
predicts the facts as before, that model's block still carries them. What the retain model's block
loses is what a block without the facts loses. In formulas, for a question, with s the mean
log-probability (nats) of the facts' tokens under the target model:

    lost(model, l) = s - s(block l replaced by the model's)
    layers         = those with lost(retain, l) > depth.threshold
    erased         = sum over layers of clip(lost(model, l), 0, lost(retain, l))
                     / sum over layers of lost(retain, l)
    depth          = 1 - erased

1 for the target model itself, 0 for the retain model; None where no layer carries the facts.

Source: Unlearning Depth Score, Lee et al. (arXiv 2605.24614), github.com/gnueaj/
unlearning-depth-score, which reports `erased`. Differences: every unwanted word that the question
does not say counts (theirs: one entity a question, answers filtered by hand); the run's own
prompts.

Logit lens (nostalgebraist 2020): the output of each block goes through the model's own last norm
and head. Measured are the probability and the rank of the first fact's first token.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tif.audit.attack import AttackInputs, AttackResult, Subject, attack
from tif.audit.facts import find_facts, list_facts
from tif.config.errors import ConfigError
from tif.config.keys import key
from tif.data.encoding import Batch, Encoded, Encoder, collate
from tif.data.samples import Sample
from tif.evaluation.generate import batch_by_length
from tif.scoring.block_output import count_blocks, list_blocks, pick_output, recorded_block
from tif.scoring.forward import run_model
from tif.scoring.packing import lay_out
from tif.scoring.token_scores import score_tokens
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEPTH, LENS, RANK = "depth", "logit lens: best layer", "logit lens: best rank (1 / rank)"


@dataclasses.dataclass(frozen=True)
class LayerValues:
    """What was measured of one question: (L,) each, by layer."""

    retain_lost: Sequence[float]
    lost: Sequence[float]
    probability: Sequence[float]
    rank: Sequence[int]


def check(inputs: AttackInputs) -> None:
    """Raise ConfigError unless the three models have layers of the same shape."""
    shapes = {}
    for role, subject in inputs.subjects.items():
        sizes = subject.config.get_text_config()
        shapes[role] = [subject.config.model_type, getattr(sizes, "hidden_size", None),
            getattr(sizes, "num_hidden_layers", None)]  # fmt: skip
    for role in ("unlearned", "retain"):
        if role in shapes and shapes[role] != shapes["target"]:
            raise ConfigError(
                f"attacks: depth puts layers of one model into another; want models of one shape, "
                f"got target {shapes['target']} and {role} {shapes[role]} (family, hidden size, "
                "layers); leave depth out"
            )


@dataclasses.dataclass
class Depth:
    """Layers of the model in the place of the target model's."""

    threshold: float = key(0.05, "a layer carries the facts where the retain model's, in its "
        "place, costs more than this (nats a token)", above=0)


@attack(
    "depth", keys=Depth, headline=lambda settings: DEPTH, axis="layer", reads=("target", "retain"),
    action=lambda settings: "reading the model's layers", check=check,
)  # fmt: skip
def run(subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return how much of the facts each question's layers still carry."""
    samples = [sample for sample in inputs.forget_questions() if list_facts(sample)]
    texts = [encode_facts(subject.encoder, sample) for sample in samples]
    _check_same_tokens(inputs, samples, texts)
    texts_with_facts = [i for i, text in enumerate(texts) if any(text.uw[1:])]
    samples = [samples[i] for i in texts_with_facts]
    values = measure_layers(
        subject.model, inputs.subjects["target"].load(), inputs.subjects["retain"].load(),
        [texts[i] for i in texts_with_facts], subject.encoder.pad_id,
        inputs.settings.eval.tokens_per_batch,
    )  # fmt: skip
    threshold = inputs.settings.keys_of(Depth).threshold
    measures: dict[str, list[float | None]] = {DEPTH: [], LENS: [], RANK: []}
    for question in values:
        measures[DEPTH].append(depth_of(question.retain_lost, question.lost, threshold))
        measures[LENS].append(max(question.probability))
        measures[RANK].append(1 / min(question.rank))
    ids = [sample.id for sample in samples]
    return AttackResult(ids, measures, {
        "readable in the layer's output": list(_readable_by_layer(values, threshold)),
        "probability by logit lens": _mean_by_layer(values),
    })  # fmt: skip


def encode_facts(encoder: Encoder, sample: Sample) -> Encoded:
    """Return the tokens of a question and answer; only the facts' tokens are scored."""
    spans = tuple(span for _, span in find_facts(sample))
    encoded = encoder.encode(dataclasses.replace(sample, unwanted=spans))
    return dataclasses.replace(encoded, gw=[False] * len(encoded.gw))


def measure_layers(
    model: "PreTrainedModel", target: "PreTrainedModel", retain: "PreTrainedModel",
    texts: Sequence[Encoded], pad_id: int, tokens_per_batch: int,
) -> list[LayerValues]:  # fmt: skip
    """Return for each text what its layers lose and show; each text has a scored token."""
    layers = count_blocks(target)
    if layers == 0:
        family = target.config.model_type
        raise ConfigError(
            f"attacks: depth reads decoder blocks with one output for each token, which {family} "
            "has not; leave depth out"
        )

    def measure(indices: Sequence[int]) -> list[LayerValues]:
        batch = collate([texts[i] for i in indices], indices, pad_id).to(target.device)
        predicting = torch.zeros_like(batch.uw)
        predicting[:, :-1] = batch.uw[:, 1:]
        before = mean_logprobs(target, batch)
        lost = []
        for source in (retain, model):
            states = record_states(source, batch)
            columns = []
            for layer in range(layers):
                with replaced_output(target, layer, states[layer], predicting):
                    columns.append(before - mean_logprobs(target, batch))
            lost.append(torch.stack(columns, 1).tolist())
        probabilities, ranks = read_by_lens(model, batch, states)
        rows = zip(*lost, probabilities, ranks, strict=True)
        return [LayerValues(*row) for row in rows]

    batches = list(batch_by_length([len(text.input_ids) for text in texts], tokens_per_batch))
    with torch.no_grad():
        return share_work(batches, measure, "activation patching", target)


def mean_logprobs(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """Return (B,) mean log-probabilities (nats) of the scored tokens."""
    return score_tokens(model, batch, "padded").logprob.sum(1) / batch.answer[:, 1:].sum(1)


def record_states(model: "PreTrainedModel", batch: Batch) -> list[torch.Tensor]:
    """Return the output of each block: (B, T, D)."""
    layout = lay_out(model, batch, "padded")
    with contextlib.ExitStack() as stack:
        layers = range(count_blocks(model))
        outputs = [stack.enter_context(recorded_block(model, layer)) for layer in layers]
        run_model(model, layout.inputs)
    return [pick_output(output, batch.input_ids.shape) for output in outputs]


@contextlib.contextmanager
def replaced_output(
    model: Any, layer: int, states: torch.Tensor, positions: torch.Tensor
) -> Iterator[None]:
    """Put other states in the place of a block's output in the forwards inside the context.

    Args:
        model: a causal LM.
        layer: the block, counted from 0.
        states: (B, T, D), of the same texts.
        positions: (B, T) bool, where they are put; elsewhere the output stays.
    """

    def replace(_block: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        mixed = torch.where(positions[..., None], states.to(hidden), hidden)
        return mixed if isinstance(output, torch.Tensor) else (mixed, *output[1:])

    handle = list_blocks(model)[layer].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def read_by_lens(
    model: "PreTrainedModel", batch: Batch, states: Sequence[torch.Tensor]
) -> tuple[list[list[float]], list[list[int]]]:
    """Return probability and rank (1 = most likely) of the first scored token, (B, L) each.

    The last block's output is replaced by that of each block, so that the model's own last norm,
    head and logit transform read it.
    """
    layout, last = lay_out(model, batch, "padded"), len(states) - 1
    everywhere = torch.ones_like(batch.uw)
    counts_B = batch.answer[:, 1:].sum(1)
    first_B = counts_B.cumsum(0) - counts_B  # of each text's scored tokens
    probabilities, ranks = [], []
    for layer_states in states:
        with replaced_output(model, last, layer_states, everywhere):
            logits = layout.select_predictions(run_model(model, layout.inputs).logits)
        logits_BV, targets_B = logits[first_B].float(), layout.targets[first_B]
        true_B1 = logits_BV.gather(1, targets_B[:, None])
        probabilities.append(logits_BV.softmax(1).gather(1, targets_B[:, None])[:, 0])
        ranks.append((logits_BV > true_B1).sum(1) + 1)
    return torch.stack(probabilities, 1).tolist(), torch.stack(ranks, 1).tolist()


def depth_of(
    retain_lost: Iterable[float], lost: Iterable[float], threshold: float
) -> float | None:
    """Return which share of what the retain model's layers lose the model's layers still carry.

    None where the retain model's layers lose no more than the threshold.
    """
    total, erased = 0.0, 0.0
    for of_retain, of_model in zip(retain_lost, lost, strict=True):
        if of_retain > threshold:
            total += of_retain
            erased += min(max(of_model, 0.0), of_retain)
    return 1 - erased / total if total else None


def _readable_by_layer(
    values: Sequence[LayerValues], threshold: float
) -> Iterator[tuple[float, float]]:
    """Yield the depth of each layer alone, over all questions whose facts it carries."""
    for layer in range(len(values[0].lost) if values else 0):
        retain_lost = [question.retain_lost[layer] for question in values]
        depth = depth_of(retain_lost, [question.lost[layer] for question in values], threshold)
        if depth is not None:
            yield float(layer), depth


def _mean_by_layer(values: Sequence[LayerValues]) -> list[tuple[float, float]]:
    columns = torch.tensor([question.probability for question in values], dtype=torch.float64)
    return [(float(layer), mean) for layer, mean in enumerate(columns.mean(0).tolist())]


def _check_same_tokens(
    inputs: AttackInputs, samples: Sequence[Sample], texts: Sequence[Encoded]
) -> None:
    """Raise ConfigError unless the other models read the same tokens."""
    for role in ("target", "retain"):
        encoder = inputs.subjects[role].encoder
        for sample, text in zip(samples, texts, strict=True):
            if encode_facts(encoder, sample).input_ids != text.input_ids:
                raise ConfigError(
                    f"attacks: depth wants models with one tokenizer; the {role} model cuts "
                    f"{sample.id} into other tokens; leave depth out"
                )
