"""Compute scores from logits in one pass, and run the LM head in chunks after the decoder.

Called by `tif.scoring.token_scores`.

Shapes: K answer tokens, D hidden, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tif.scoring.attention import row_kind
from tif.utils.torch_state import evaluation_mode

CHUNK_TOKENS = 1024
ROWS_IN_CACHE = 16  # rows of logits that a CPU reads once for all three scores


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A causal LM as `compute_logits(decoder(...).last_hidden_state)`, which are its logits.

    Attributes:
        decoder: everything up to the final norm.
        compute_logits: (..., D) hidden states -> (..., V) logits, with the model's logit transform.
    """

    decoder: torch.nn.Module
    compute_logits: Callable[[torch.Tensor], torch.Tensor]


def scores_of_logits(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logit, log-probability (nats) and mean logit of the targets, (K,) float32 each.

    Args:
        logits: (K, V), any dtype.
        targets: (K,) token ids.
    """
    return _LogitScores.apply(logits, targets)


class _LogitScores(torch.autograd.Function):
    """Scores of logits and their gradient in one pass each; autograd would need five."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        blocks = []
        for z, ids in _blocks(logits, targets):
            blocks.append((z.gather(1, ids[:, None])[:, 0], z.logsumexp(1), z.mean(1)))
        logit, norm, mean = (torch.cat(column) for column in zip(*blocks, strict=True))
        ctx.save_for_backward(logits, targets, norm)
        return logit, logit - norm, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, targets, norm = ctx.saved_tensors
        logit_grad, logprob_grad, mean_grad = (grad[:, None] for grad in grads)
        output = torch.empty_like(logits)
        first = 0
        for z, ids in _blocks(logits, targets):
            rows = slice(first, first + len(z))
            first = rows.stop
            # d logprob / dz = one-hot - softmax; d logit / dz = one-hot; d mean / dz = 1 / V
            grad = (z - norm[rows, None]).exp_().mul_(-logprob_grad[rows])
            grad.add_(mean_grad[rows] / z.shape[1])
            output[rows] = grad.scatter_add_(1, ids[:, None], (logit_grad + logprob_grad)[rows])
        return output, None


def _blocks(
    logits: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield rows of (K, V) logits, in float32 at least, and their targets; one block at least."""
    rows = ROWS_IN_CACHE if row_kind(logits.device) == "cpu" else max(len(logits), 1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    for z, ids in zip(logits.split(rows), targets.split(rows), strict=True):
        yield z.to(dtype), ids


def score_in_chunks(
    split: SplitModel, hidden: torch.Tensor, targets: torch.Tensor, chunk_tokens: int
) -> tuple[torch.Tensor, ...]:
    """Return `scores_of_logits` of hidden states without holding all logits at once.

    With gradients each chunk's logits are dropped after the forward and computed again in the
    backward pass.

    Args:
        split: the model.
        hidden: (K, D), the decoder's output at the positions that predict the targets.
        targets: (K,) token ids.
        chunk_tokens: rows of logits that are held at once.
    """

    def score_chunk(hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return scores_of_logits(split.compute_logits(hidden), targets)

    chunks = []
    pairs = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    for hidden_part, ids in pairs:
        if torch.is_grad_enabled():
            chunks.append(checkpoint(score_chunk, hidden_part, ids, use_reentrant=False))
        else:
            chunks.append(score_chunk(hidden_part, ids))
    return tuple(torch.cat(column) for column in zip(*chunks, strict=True))


def split_model(model: Any) -> SplitModel | None:
    """Return the model's decoder and head, or None where its logits are not made of the two alone.

    The split is tried on four tokens against the model's own `forward`.
    """
    try:
        decoder = model.get_decoder()
        if decoder is model:  # Llama 4, transformers 5.24
            decoder = model.model
        split = SplitModel(decoder, _logits_function(model))
        ids = torch.arange(4, device=model.device)[None]
        with evaluation_mode(model):
            expected = model(input_ids=ids, use_cache=False).logits
            hidden = split.decoder(input_ids=ids, use_cache=False).last_hidden_state
            actual = split.compute_logits(hidden)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None
    close = 1e-4 if expected.dtype == torch.float32 else 0.05
    is_same = actual.shape == expected.shape and torch.allclose(actual, expected, close, close)
    return split if is_same else None


def _logits_function(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the head with the logit transforms that configurations of transformers name."""
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 to 4, VaultGemma
    factor = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite

    def compute_logits(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        if factor is not None:
            logits = logits * factor
        if divisor is not None:
            logits = logits / divisor
        return logits if cap is None else torch.tanh(logits / cap) * cap

    return compute_logits
