"""Lay a batch out for one forward of a model: samples end to end in a row, or one padded rectangle.

Called by `tif.scoring.token_scores`. The layout knows where the answer tokens stand, so that the LM
head runs on their positions only.

Shapes: B samples, T tokens, K answer tokens, V vocabulary, D hidden.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tif.data.encoding import Batch
from tif.scoring.attention import row_kind, sample_borders

# Under one mask, on a CPU, a longer row costs more in attention than it saves in calls.
# SmolLM2-135M, float32, one core, CPU-seconds for 64 tokens: rows of 256 0.265, of 1024 0.306.
PACKED_TOKENS = {"cpu": 256, "cuda": 4096}
LONG_ROW = 1024  # of a CPU whose attention runs sample by sample, see tif.scoring.attention


@dataclasses.dataclass
class Layout:
    """The input of one forward, and where its answer tokens are.

    Attributes:
        inputs: arguments of the model's `forward`.
        targets: (K,) long, the answer tokens, sample by sample.
        predicting: (B, C) bool, which of the C columns with logits predict an answer token; None =
            all, in one row.
        answers: (B, T) bool, or (1, N) for a row: where the answer tokens themselves stand.
    """

    inputs: dict[str, Any]
    targets: torch.Tensor
    predicting: torch.Tensor | None
    answers: torch.Tensor

    def select_predictions(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the (K, ...) rows, of logits or hidden states, that predict the answer tokens."""
        # Indexing a row with a mask would copy it, and its gradient too.
        return logits.squeeze(0) if self.predicting is None else logits[self.predicting]


def packed_tokens(device: torch.device) -> int:
    """Return how many tokens of a packed row run fastest on the device."""
    return PACKED_TOKENS[row_kind(device)]


def row_tokens(model: torch.nn.Module, batch: Batch) -> int:
    """Return how many tokens of a packed row run fastest in this model on the batch's device."""
    is_long = bool(sample_borders(model, batch.lengths))
    return LONG_ROW if is_long else packed_tokens(batch.lengths.device)


def cut_into_rows(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of consecutive samples of at most `limit` tokens, one sample at least."""
    first, total = 0, 0
    for index, length in enumerate(lengths):
        if index > first and total + length > limit:
            yield first, index
            first, total = index, 0
        total += length
    if lengths:
        yield first, len(lengths)


def rows_of(batch: Batch, limit: int) -> Iterator[Batch]:
    """Yield parts of consecutive samples that each fill a packed row of `limit` tokens."""
    for first, last in cut_into_rows(batch.lengths.tolist(), limit):
        yield samples_of(batch, first, last)


def samples_of(batch: Batch, first: int, last: int) -> Batch:
    """Return samples first to last (exclusive), without pairs, padded to the batch's width."""
    tensors = (batch.index, batch.input_ids, batch.lengths, batch.uw, batch.gw)
    index, ids, lengths, uw, gw = (tensor[first:last] for tensor in tensors)
    return Batch(batch.ids[first:last], index, ids, lengths, uw, gw)


def lay_out(model: torch.nn.Module, batch: Batch, batching: str) -> Layout:
    """Return the layout of a batch: one row ("packed") or one rectangle ("padded")."""
    columns = torch.arange(batch.input_ids.shape[1], device=batch.lengths.device)
    is_real = columns < batch.lengths[:, None]
    is_answer = batch.answer
    is_answer[:, 0] = False  # nothing stands before a text's first token to predict it from
    if batching == "padded":
        return _padded_layout(batch, is_real, is_answer)
    row_ids, answers = batch.input_ids[is_real][None], is_answer[is_real][None]
    places = answers[0].nonzero()[:, 0]
    # transformers keeps samples apart where position_ids restart, but only without a mask and a
    # cache.
    inputs = {
        "input_ids": row_ids,
        "position_ids": (is_real.cumsum(1)[is_real] - 1)[None],
        "logits_to_keep": places - 1,
        "use_cache": False,
        **sample_borders(model, batch.lengths),
    }
    return Layout(inputs, row_ids[0, places], None, answers)


def _padded_layout(batch: Batch, is_real: torch.Tensor, is_answer: torch.Tensor) -> Layout:
    columns = is_answer[:, 1:].any(0).nonzero()[:, 0]  # the head runs where any row has an answer
    predicting = is_answer[:, columns + 1]
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": is_real.long(),
        "logits_to_keep": columns,
        "use_cache": False,
    }
    return Layout(inputs, batch.input_ids[:, columns + 1][predicting], predicting, is_answer)
