"""The reference: the original model that a loss compares the policy with, or its scores.

`tif.training.prepare` makes one before the first step and UnlearningModule asks it. Of three kinds,
equal to rounding: scores taken once, the policy without its adapters, a second copy.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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


class Reference(Protocol):
    """What every kind of reference offers."""

    def scores(self, batch: Batch) -> TokenScores:
        """Return the original model's scores of a batch, (B, T-1) each, without a gradient."""

    def use_model(self) -> AbstractContextManager[torch.nn.Module]:
        """Yield the original model for one forward, without dropout and gradients.

        The policy may be changed inside the block: call it before or after.

        Raises:
            TypeError: If there are only scores; the plan refuses losses that need more.
        """


@dataclasses.dataclass
class CachedReference:
    """Scores of all forget samples, taken from the policy before its first step.

    Exact, since the reference is the initial policy. 12 bytes a token, no second model.
    """

    rows: Rows

    @classmethod
    def from_policy(
        cls, policy: "PreTrainedModel", samples: Sequence[Encoded], pad_id: int, batching: str
    ) -> "CachedReference":
        """Score the samples with the policy as it is now."""
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
        return cls(rows)

    def scores(self, batch: Batch) -> TokenScores:
        """Look up the scores of the batch's samples by `batch.index`."""
        width, device = batch.input_ids.shape[1] - 1, batch.input_ids.device
        columns = {}
        for name, rows in self.rows.items():
            column = pad_sequence([rows[i] for i in batch.index.tolist()], batch_first=True)
            columns[name] = pad(column, (0, width - column.shape[1])).to(device)
        return TokenScores(**columns)

    def use_model(self) -> AbstractContextManager[torch.nn.Module]:
        """Raise TypeError: there is no model."""
        raise TypeError("cached scores are no model; want model.reference=frozen or adapter")


BATCH_SIZE = 16  # samples scored at once for the cache


class FrozenReference:
    """A second copy of the initial policy, on its device: exact, and as large as the policy."""

    def __init__(self, policy: "PreTrainedModel", batching: str) -> None:
        self.model = copy.deepcopy(policy).eval().requires_grad_(False)
        self.batching = batching

    def scores(self, batch: Batch) -> TokenScores:
        """Return the copy's scores of any batch."""
        with self.use_model() as model:
            return score_tokens(model, batch, self.batching)

    @contextlib.contextmanager
    def use_model(self) -> Iterator["PreTrainedModel"]:
        """Yield the copy."""
        with torch.no_grad():
            yield self.model


class AdapterReference:
    """The policy with its LoRA adapters off: exact, and no second model in memory."""

    def __init__(self, policy: "PreTrainedModel", batching: str) -> None:
        self.policy, self.batching = policy, batching

    def scores(self, batch: Batch) -> TokenScores:
        """Return the scores of any batch without the adapters."""
        with self.use_model() as model:
            return score_tokens(model, batch, self.batching)

    @contextlib.contextmanager
    def use_model(self) -> Iterator["PreTrainedModel"]:
        """Yield the policy, its adapters off inside the block."""
        with evaluation_mode(self.policy), adapters_disabled(self.policy):
            yield self.policy


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
    if kind == "frozen":
        return FrozenReference(policy, batching)
    if kind == "adapter":
        return AdapterReference(policy, batching)

    def compute() -> Rows:
        return CachedReference.from_policy(policy, samples, pad_id, batching).rows

    is_sharded = isinstance(next(policy.parameters()), DTensor)
    if cache_folder is None or is_sharded:  # no process has all bits of a shard to hash
        return CachedReference(compute())
    file = cache_folder / f"{reference_cache.hash_inputs(policy, samples, batching)}.safetensors"
    return CachedReference(reference_cache.read_or_compute(file, samples, compute))
