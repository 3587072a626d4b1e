"""The references that a policy is compared with: the original model's scores, kept or computed."""

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch.distributed.tensor import DTensor

from tif.data.encoding import Batch, Encoded, collate
from tif.models import reference_cache
from tif.scoring.token_scores import TokenScores, token_scores
from tif.utils.terminal import track
from tif.utils.torch_state import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reference(Protocol):
    """The original model's scores of forget batches."""

    def scores(self, batch: Batch) -> TokenScores:
        """(B, T-1) each, no gradient, on the batch's device."""

    def on(self, device: torch.device) -> torch.nn.Module:
        """The original model, for losses that read more of it than scores."""


@dataclasses.dataclass
class CachedReference:
    """The policy's own scores of all forget samples, taken once before it changes: no second model in memory.

    Exact, since the reference is the initial policy. 12 bytes an answer token.
    """

    rows: list[TokenScores]  # one a forget sample, each (1, T_i - 1), on the CPU

    @classmethod
    def of(
        cls, policy: "PreTrainedModel", forget: Sequence[Encoded], pad_id: int, batching: str, batch_size: int = 16
    ) -> "CachedReference":
        """Score `forget` with the policy as it is; sorted by length, so that batches hold little padding."""
        rows: dict[int, TokenScores] = {}
        order = sorted(range(len(forget)), key=lambda i: len(forget[i].input_ids))
        starts = range(0, len(order), batch_size)
        with evaluation_mode(policy):
            for start in track(starts, "reference scores"):
                index = order[start : start + batch_size]
                batch = collate([forget[i] for i in index], index, pad_id).to(policy.device)
                scores = token_scores(policy, batch, batching)
                for row, i in enumerate(index):
                    length = len(forget[i].input_ids) - 1
                    cut = (t[row : row + 1, :length].cpu().clone() for t in dataclasses.astuple(scores))
                    rows[i] = TokenScores(*cut)
        return cls([rows[i] for i in range(len(forget))])

    def scores(self, batch: Batch) -> TokenScores:
        """Look up the batch's rows by `batch.index`."""
        width, device = batch.input_ids.shape[1] - 1, batch.input_ids.device
        rows = [self.rows[i] for i in batch.index.tolist()]

        def column(name: str) -> torch.Tensor:
            padded = [torch.nn.functional.pad(getattr(r, name), (0, width - r.logit.shape[1])) for r in rows]
            return torch.cat(padded).to(device)

        return TokenScores(column("logit"), column("logprob"), column("mean_logit"))

    def on(self, device: torch.device) -> torch.nn.Module:
        """There is none: tif.planning refuses losses that would ask."""
        raise TypeError("cached scores are no model")


class FrozenReference:
    """A second copy of the initial policy, on the batch's device. Exact for any input, at the price of its memory."""

    def __init__(self, policy: "PreTrainedModel", batching: str) -> None:
        self.model = copy.deepcopy(policy).eval().requires_grad_(False)
        self.batching = batching

    def on(self, device: torch.device) -> "PreTrainedModel":
        """The copy, on that device from now on."""
        self.model.to(device)
        return self.model

    def scores(self, batch: Batch) -> TokenScores:
        """One forward of the copy; any batch will do."""
        with torch.no_grad():
            return token_scores(self.on(batch.input_ids.device), batch, self.batching)


def make_reference(
    kind: str,
    policy: "PreTrainedModel",
    forget: Sequence[Encoded],
    pad_id: int,
    batching: str,
    folder: Path | None = None,
) -> Reference:
    """`kind`: model.reference; auto = cached, the cheapest one. `folder`: keeps cached scores for other runs."""
    if kind == "frozen":
        return FrozenReference(policy, batching)
    if kind == "adapter":
        from tif.models.lora import AdapterReference

        return AdapterReference(policy, batching)
    if folder is None or isinstance(next(policy.parameters()), DTensor):  # no process has all of a shard's bits
        return CachedReference.of(policy, forget, pad_id, batching)

    def make() -> list[TokenScores]:
        return CachedReference.of(policy, forget, pad_id, batching).rows

    return CachedReference(list(reference_cache.rows(folder, policy, forget, batching, make)))
