"""The reference: the original model that a loss compares the policy with, or only its scores.

`tif.training.prepare` makes one before the first step and UnlearningModule asks it. `scores(batch)`
serves losses of token scores, `use_model()` those that read whole distributions.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from tif.data.encoding import Batch, Encoded, collate
from tif.models import reference_cache
from tif.models.lora import adapters_disabled
from tif.models.reference_cache import SCORE_NAMES, Rows
from tif.scoring.token_scores import TokenScores, score_tokens
from tif.utils.terminal import track
from tif.utils.torch_state import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 16  # samples that the cached reference scores at once


class ModelReference:
    """A model to compare with: exact for any batch.

    Args:
        model: a frozen copy of the policy; or the policy itself, which with its LoRA adapters off
            is the original model and needs no second one in memory.
        batching: "packed" or "padded", see `score_tokens`.
    """

    def __init__(self, model: "PreTrainedModel | torch.nn.Module", batching: str) -> None:
        self.model: Any = model
        self.batching = batching

    def scores(self, batch: Batch) -> TokenScores:
        """Return the model's scores of a batch, (B, T-1) each, without a gradient."""
        with self.use_model() as model:
            return score_tokens(model, batch, self.batching)

    @contextlib.contextmanager
    def use_model(self) -> Iterator[torch.nn.Module]:
        """Yield the model for one forward: no adapters, no dropout, no gradients in the block."""
        with evaluation_mode(self.model), adapters_disabled(self.model):
            yield self.model


class CachedReference:
    """Scores of all forget samples, taken from the policy before its first step.

    Exact, since the reference is the initial policy; 12 bytes a token and no second model.

    Args:
        rows: scores of each forget sample.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def scores(self, batch: Batch) -> TokenScores:
        """Look up the scores of the batch's samples by `batch.index`, (B, T-1) each."""
        width, device = batch.input_ids.shape[1] - 1, batch.input_ids.device
        columns = {}
        for name, rows in self.rows.items():
            column = pad_sequence([rows[i] for i in batch.index.tolist()], batch_first=True)
            columns[name] = pad(column, (0, width - column.shape[1])).to(device)
        return TokenScores(**columns)


Reference = ModelReference | CachedReference


def copy_policy(policy: "PreTrainedModel", batching: str) -> ModelReference:
    """Return a frozen copy of the policy, on its device, to compare with."""
    return ModelReference(copy.deepcopy(policy).eval().requires_grad_(False), batching)


def score_samples(
    policy: "PreTrainedModel", samples: Sequence[Encoded], pad_id: int, batching: str
) -> Rows:
    """Return the policy's scores of the samples, on the CPU."""
    lengths = [len(sample.input_ids) - 1 for sample in samples]
    # Sorted by length, so that batches hold little padding.
    order = sorted(range(len(samples)), key=lengths.__getitem__)
    rows: Rows = {name: [torch.empty(0)] * len(samples) for name in SCORE_NAMES}
    with evaluation_mode(policy):
        for start in track(range(0, len(order), BATCH_SIZE), "reference scores"):
            indices = order[start : start + BATCH_SIZE]
            batch = collate([samples[i] for i in indices], indices, pad_id).to(policy.device)
            scores = score_tokens(policy, batch, batching)
            for name in SCORE_NAMES:
                for row, i in zip(getattr(scores, name).cpu(), indices, strict=True):
                    rows[name][i] = row[: lengths[i]].clone()
    return rows


def make_reference(
    kind: str,
    policy: "PreTrainedModel",
    samples: Sequence[Encoded],
    pad_id: int,
    batching: str,
    cache_folder: Path | None = None,
) -> Reference:
    """Return a reference to the policy as it is now.

    Args:
        kind: as model.reference; "auto" is "cached", the cheapest.
        policy: the model, on its device.
        samples: the forget samples, in the order of `Batch.index`.
        pad_id, batching: as for `collate` and `score_tokens`.
        cache_folder: keeps cached scores for other runs.
    """
    if kind == "adapter":
        return ModelReference(policy, batching)
    if kind == "frozen":
        return copy_policy(policy, batching)

    def compute() -> Rows:
        return score_samples(policy, samples, pad_id, batching)

    is_sharded = isinstance(next(policy.parameters()), DTensor)
    if cache_folder is None or is_sharded:  # no process has all bits of a shard to hash
        return CachedReference(compute())
    file = cache_folder / f"{reference_cache.hash_inputs(policy, samples, batching)}.safetensors"
    return CachedReference(reference_cache.read_or_compute(file, samples, compute))
