"""Model and batch to token scores: the only place with the next-token shift and the LM head.

Shapes: B samples, T tokens, K answer tokens of a row, V vocabulary.
"""

import dataclasses
from collections.abc import Iterator

import torch

from tif.data.encode import Batch

# Longer rows cost more attention than they save in calls: measured on 2 CPU cores with SmolLM2-135M (512 tokens: 0.39 s
# a 64-token sample forward and backward, 1024: 0.48 s).
PACKED_TOKENS = {"cpu": 512, "cuda": 4096}


@dataclasses.dataclass
class TokenScores:
    """What losses and metrics need of a model, for each token that had to be predicted.

    Attributes:
        logit: (B, T-1) float32, raw logit of the true next token; column t scores token t+1. 0 outside the answer.
        logprob: (B, T-1) float32, its log-probability (nats). 0 outside the answer.
        mean_logit: (B, T-1) float32, mean of the logits over the vocabulary. 0 outside the answer.
    """

    logit: torch.Tensor
    logprob: torch.Tensor
    mean_logit: torch.Tensor

    def detach(self) -> "TokenScores":
        """The same numbers without a graph."""
        return TokenScores(self.logit.detach(), self.logprob.detach(), self.mean_logit.detach())


def token_scores(model: torch.nn.Module, batch: Batch, batching: str = "packed") -> TokenScores:
    """Score the answer tokens of a batch; the LM head runs on their positions only.

    The logits come from the model's own `forward` (`logits_to_keep`), so a model's logit transform (soft-capping,
    scaling) is in them; they are turned into float32 before anything is computed from them.

    Args:
        model: a Hugging Face causal LM.
        batch: prompts and answers; every row has an answer token at a position > 0.
        batching: "packed": samples end to end in rows without padding, kept apart by restarting `position_ids`;
            "padded": one rectangular forward with an attention mask made from the lengths.

    Returns:
        TokenScores with gradients where the model has them.
    """
    answer = batch.answer[:, 1:]
    rows, columns = answer.nonzero(as_tuple=True)
    forward = _packed if batching == "packed" else _padded
    parts = [_of_logits(logits, targets) for logits, targets in forward(model, batch)]
    empty = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
    return TokenScores(*(empty.index_put((rows, columns), torch.cat(p)) for p in zip(*parts, strict=True)))


def _of_logits(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, V) logits, (K,) target ids -> (K,) each of logit, log-probability, mean logit."""
    logits = logits.float()
    logit = logits.gather(1, targets[:, None])[:, 0]
    return logit, logit - logits.logsumexp(1), logits.mean(1)


def _packed(model: torch.nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(K, V) logits and (K,) targets of one packed row after the other, in the order of the batch."""
    for first, last in _rows(batch.lengths.tolist(), PACKED_TOKENS.get(batch.input_ids.device.type, 4096)):
        lengths = batch.lengths[first:last]
        real = torch.arange(batch.input_ids.shape[1], device=lengths.device) < lengths[:, None]
        positions = real.cumsum(1)[real] - 1
        answer = batch.answer[first:last]
        answer[:, 0] = False  # nothing stands before a text's first token to predict it from
        answer = answer[real].nonzero()[:, 0]
        ids = batch.input_ids[first:last][real]
        # transformers keeps samples apart where position_ids restart, but only without an attention mask and a cache.
        output = model(input_ids=ids[None], position_ids=positions[None], logits_to_keep=answer - 1, use_cache=False)
        yield output.logits[0], ids[answer]


def _rows(lengths: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into consecutive runs of at most `limit` tokens (one sample at least)."""
    first, total = 0, 0
    for i, n in enumerate(lengths):
        if i > first and total + n > limit:
            yield first, i
            first, total = i, 0
        total += n
    yield first, len(lengths)


def _padded(model: torch.nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    answer = batch.answer[:, 1:]
    columns = answer.any(0).nonzero()[:, 0]  # the head runs where any row has an answer
    real = torch.arange(batch.input_ids.shape[1], device=answer.device) < batch.lengths[:, None]
    output = model(input_ids=batch.input_ids, attention_mask=real.long(), logits_to_keep=columns, use_cache=False)
    keep = answer[:, columns]
    yield output.logits[keep], batch.input_ids[:, 1:][:, columns][keep]


def best_batching(asked: str, model: torch.nn.Module) -> str:
    """What `data.batching` means for this model: "auto" is "packed" where packing leaves the scores as they are.

    Models without `position_ids`, or whose state runs through the row (Mamba), fail the probe and are padded.
    """
    if asked != "auto":
        return asked
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = (torch.arange(10, device=device).view(2, 5) * 7 + 3) % vocabulary
    everything = torch.ones(2, 5, dtype=torch.bool, device=device)
    probe = Batch(("a", "b"), torch.arange(2), ids, torch.full((2,), 5, device=device), everything, ~everything)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed, padded = (token_scores(model, probe, b).logprob for b in ("packed", "padded"))
        same = torch.allclose(packed, padded, atol=1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1)
    except TypeError:  # forward takes no position_ids
        same = False
    finally:
        model.train(training)
    return "packed" if same else "padded"
