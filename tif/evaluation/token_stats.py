"""Score texts: the loss of each, statistics of its answer tokens, and the norm of its gradient.

Shapes: K answer tokens of some texts, V vocabulary.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tif.data.encoding import Encoded, collate
from tif.evaluation.generate import batch_by_length
from tif.evaluation.questions import EvaluationSetup
from tif.records.types import TokenStats
from tif.scoring.packing import cut_into_rows, packed_tokens
from tif.scoring.shared_prompts import AnswerLogits, answer_logits
from tif.scoring.token_scores import ModelContext, score_tokens
from tif.utils.torch_state import set_training_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CHUNK_TOKENS = 256  # answer tokens whose float32 distributions are held at once


@dataclasses.dataclass
class TextScore:
    """A text's mean negative log-likelihood (nats) over its answer tokens, and their statistics."""

    loss: float
    tokens: int
    stats: TokenStats | None = None


def score_texts(
    model: "PreTrainedModel",
    texts: Sequence[Encoded],
    wants_stats: Sequence[bool],
    setup: EvaluationSetup,
    original: ModelContext | None = None,
) -> list[TextScore]:
    """Score texts in batches of similar lengths, divided over all processes.

    Packed: consecutive texts with one id share a prompt, which runs once for all of them.

    Args:
        model: a causal LM in evaluation mode, without gradients.
        texts: each with an answer token at a position > 0, no longer than the model's context.
        wants_stats: for each text, whether its `stats` are wanted.
        setup: batching and tokens in a batch.
        original: opens the model that `stats.kl` compares with; None = no KL.
    """

    def answer_texts(opened: torch.nn.Module, indices: Sequence[int]) -> AnswerLogits:
        groups = itertools.groupby([texts[i] for i in indices], lambda text: text.id)
        groups_of_texts = [list(group) for _, group in groups]
        return answer_logits(opened, groups_of_texts, setup.batching, setup.encoder.pad_id)

    def score_batch(indices: Sequence[int]) -> list[TextScore]:
        answers = answer_texts(model, indices)
        wanted = [wants_stats[i] for i in indices]
        wanted_K = torch.tensor(wanted).repeat_interleave(torch.tensor(answers.counts))
        original_logits = None
        if original is not None and any(wanted):
            with original() as original_model:
                wanted_texts = [i for i in indices if wants_stats[i]]
                original_logits = answer_texts(original_model, wanted_texts).logits
        logprobs_K, columns_K5 = _measure_tokens(
            answers.logits, answers.targets, original_logits, wanted_K.to(answers.logits.device)
        )
        scores = []
        for logprobs in logprobs_K.double().split(answers.counts):
            scores.append(TextScore(-logprobs.sum().item() / len(logprobs), len(logprobs)))
        columns = columns_K5.split(answers.counts)
        for i, score, stats_K5 in zip(indices, scores, columns, strict=True):
            if wants_stats[i]:
                ended = texts[i].input_ids[-1] in setup.encoder.end_ids
                score.stats = _make_stats(stats_K5, ended)
        return scores

    batches = _plan_batches(texts, setup, model.device)
    return share_work(batches, score_batch, "scoring answers", model)


def _plan_batches(
    texts: Sequence[Encoded], setup: EvaluationSetup, device: torch.device
) -> list[list[int]]:
    """Return the indices of the texts of each forward, the longest first."""
    lengths = [len(text.input_ids) for text in texts]
    if setup.batching == "padded":
        return list(batch_by_length(lengths, setup.rules.tokens_per_batch))

    def size(group: list[int]) -> int:
        return sum(lengths[i] for i in group)

    by_id = itertools.groupby(range(len(texts)), lambda i: texts[i].id)
    groups = sorted((list(group) for _, group in by_id), key=size, reverse=True)
    limit = min(setup.rules.tokens_per_batch, packed_tokens(device))
    batches = []
    for first, last in cut_into_rows([size(group) for group in groups], limit):
        batches.append(list(itertools.chain.from_iterable(groups[first:last])))
    return batches


def _measure_tokens(
    logits_KV: torch.Tensor,
    targets_K: torch.Tensor,
    original_logits: torch.Tensor | None,
    wanted_K: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (K,) log-probabilities and (K, 5) columns of `_describe_tokens`, on the CPU.

    Tokens whose statistics are not wanted have zeros; `original_logits` has rows for the others
    only. Float32 whatever the model's dtype.
    """
    logprobs, columns = [], []
    original_row = 0
    for start in range(0, len(targets_K), CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        logits, targets, wanted = logits_KV[chunk].float(), targets_K[chunk], wanted_K[chunk]
        logprob = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
        logprobs.append(logprob.clamp(max=0))  # rounding may leave it a little above
        described = torch.zeros(len(targets), 5, device=logits.device)
        count = int(wanted.sum())
        if count:
            original = None
            if original_logits is not None:
                original = original_logits[original_row : original_row + count].float()
            original_row += count
            described[wanted] = _describe_tokens(logits[wanted], targets[wanted], original)
        columns.append(described.cpu())
    return torch.cat(logprobs).cpu(), torch.cat(columns)


def _describe_tokens(
    logits_KV: torch.Tensor, targets_K: torch.Tensor, original_KV: torch.Tensor | None
) -> torch.Tensor:
    """Return (K, 5): log-probability, is argmax, mean, deviation, KL (NaN: no original)."""
    logp_KV = logits_KV.log_softmax(1)
    p_KV = logp_KV.exp()
    mean_K = _expectation(p_KV, logp_KV)
    variance_K = _expectation(p_KV, (logp_KV - mean_K[:, None]).square())
    kl_K = torch.full_like(mean_K, torch.nan)
    if original_KV is not None:
        original_logp_KV = original_KV.log_softmax(1)
        kl_K = _expectation(original_logp_KV.exp(), original_logp_KV - logp_KV).clamp(min=0)
    is_top_K = (logits_KV.argmax(1) == targets_K).float()
    logprob_K = logp_KV.gather(1, targets_K[:, None])[:, 0]
    return torch.stack([logprob_K, is_top_K, mean_K, variance_K.sqrt(), kl_K], 1)


def _expectation(p_KV: torch.Tensor, values_KV: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values under p: (K,); a token with logit -inf adds nothing."""
    return torch.where(p_KV > 0, p_KV * values_KV, 0.0).sum(1)


def _make_stats(columns_K5: torch.Tensor, ended: bool) -> TokenStats:
    logprob, top, mean, std, kl = columns_K5.T
    is_top = tuple(bool(value) for value in top.tolist())
    kl_or_none = None if kl.isnan().any() else _rounded(kl)
    return TokenStats(_rounded(logprob), is_top, _rounded(mean), _rounded(std), kl_or_none, ended)


def _rounded(column: torch.Tensor) -> tuple[float, ...]:
    """Return six digits after the point: float32 holds no more, and files stay small."""
    return tuple(round(value, 6) for value in column.tolist())


def gradient_norms(model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int) -> list[float]:
    """Return for each text the mean 2-norm of its loss's gradient over the model's weight tensors.

    Divided over all processes. The model's mode, its gradients and which weights take one are
    restored.
    """
    was_training, weights = model.training, list(model.parameters())
    before = [(weight.requires_grad, weight.grad) for weight in weights]

    def measure(indices: Sequence[int]) -> list[float]:
        batch = collate([texts[i] for i in indices], indices, pad_id).to(model.device)
        with torch.enable_grad():
            logprobs = score_tokens(model, batch, "padded").logprob
            loss = -logprobs.sum() / batch.answer[:, 1:].sum()
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        norms = [gradient.float().norm().item() for gradient in gradients if gradient is not None]
        return [float(np.mean(norms))]

    model.eval()
    for weight in weights:
        weight.requires_grad_(weight.is_floating_point())
    try:
        return share_work([[i] for i in range(len(texts))], measure, "gradient norms", model)
    finally:
        set_training_mode(model, was_training)
        for weight, (requires_grad, gradient) in zip(weights, before, strict=True):
            weight.requires_grad_(requires_grad)
            weight.grad = gradient
