"""How a batch goes through a model: rows without padding, or one padded rectangle; where its answer tokens are scored.

Shapes: B samples, T tokens, K answer tokens, V vocabulary, D hidden.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tif.data.encoding import Batch
from tif.scoring import attention

# Under one mask, on a CPU, a longer row costs more in attention than it saves in calls: SmolLM2-135M float32, forward,
# one core, CPU-seconds for 64 tokens: rows of 256 tokens 0.265, 512 0.274, 1024 0.306 (unpadded batches of equal length
# 0.24).
PACKED_TOKENS = {"cpu": 256, "cuda": 4096}
LONG_ROW = 1024  # where a CPU's attention runs sample by sample, see tif.attention
STEP_TOKENS = {"cpu": 512, "cuda": 4096}  # on a CPU attention, by sample, takes 2 % less a token in rows twice as long
CHUNK_TOKENS = 1024


def packed_tokens(device: torch.device) -> int:
    """Tokens of a packed row that run fastest on the device."""
    return PACKED_TOKENS.get(device.type, PACKED_TOKENS["cuda"])


def step_tokens(device: torch.device) -> int:
    """Tokens whose activations are held at once in training, unless `data.max_tokens_per_batch` says so."""
    return STEP_TOKENS.get(device.type, STEP_TOKENS["cuda"])


def row_tokens(model: torch.nn.Module, batch: Batch) -> int:
    """Tokens of a packed row of samples that run fastest in this model on the batch's device."""
    return LONG_ROW if attention.borders(model, batch.lengths) else packed_tokens(batch.lengths.device)


def rows(lengths: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into consecutive runs of at most `limit` tokens (one sample at least)."""
    first, total = 0, 0
    for i, n in enumerate(lengths):
        if i > first and total + n > limit:
            yield first, i
            first, total = i, 0
        total += n
    if lengths:
        yield first, len(lengths)


def rows_of(batch: Batch, limit: int) -> Iterator[Batch]:
    """The batch in runs of samples that fill a packed row of `limit` tokens each."""
    for first, last in rows(batch.lengths.tolist(), limit):
        index, ids, lengths, uw, gw = (
            t[first:last] for t in (batch.index, batch.input_ids, batch.lengths, batch.uw, batch.gw)
        )
        yield Batch(batch.ids[first:last], index, ids, lengths, uw, gw)


@dataclasses.dataclass
class Layout:
    """How a batch goes through a model.

    Attributes:
        inputs: keys of `forward`; its logits stand at positions among which `cut` finds the K answer tokens'.
        targets: (K,) the answer tokens.
        unwanted: (K,) bool, which of them are part of an unwanted word.
        cut: logits, or what goes into the head -> (K, ...).
        at: a layer's hidden states -> (K, D), those at the answer tokens themselves.
    """

    inputs: dict[str, Any]
    targets: torch.Tensor
    unwanted: torch.Tensor
    cut: Callable[[torch.Tensor], torch.Tensor]
    at: Callable[[torch.Tensor], torch.Tensor]


def layout(model: torch.nn.Module, batch: Batch, batching: str) -> Layout:
    """Of a batch for a model; `batching` is "packed" (one row) or "padded"."""
    real = torch.arange(batch.input_ids.shape[1], device=batch.lengths.device) < batch.lengths[:, None]
    answer = batch.answer
    answer[:, 0] = False  # nothing stands before a text's first token to predict it from
    if batching == "padded":
        columns = answer[:, 1:].any(0).nonzero()[:, 0]  # the head runs where any row has an answer
        padded = {"input_ids": batch.input_ids, "attention_mask": real.long(), "logits_to_keep": columns}
        keep = answer[:, columns + 1]
        targets, unwanted = (t[:, columns + 1][keep] for t in (batch.input_ids, batch.uw))
        return Layout(padded | {"use_cache": False}, targets, unwanted, lambda t: t[keep], lambda t: t[answer])
    at = answer[real].nonzero()[:, 0]
    ids, positions = batch.input_ids[real][None], (real.cumsum(1)[real] - 1)[None]
    # transformers keeps samples apart where position_ids restart, but only without an attention mask and a cache.
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions, "logits_to_keep": at - 1, "use_cache": False}
    inputs |= attention.borders(model, batch.lengths)
    return Layout(inputs, ids[0, at], batch.uw[real][at], lambda t: t.squeeze(0), lambda t: t[0, at])
