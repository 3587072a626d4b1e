"""Four ways to compute the loss of a TPO step and its gradient: ours, and three of others.

Others' ways are written plainly. They share nothing with `tif.scoring` and `tif.losses`: padded
rectangles, logits of all positions, log-probabilities by torch's cross-entropy, a second model as
the reference, a forward of its own for the retain samples.

Shapes: B samples, T tokens, V vocabulary.
"""

import copy
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tif.bench.step import Step, make_step
from tif.config.loss import Loss, keys_of
from tif.data.encoding import Batch
from tif.losses.terms import Beta
from tif.training.datamodule import UnlearningDataModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RELEASE_TOKENS = 500  # the released code pads every sample to so many tokens
IGNORED = -100  # label of a token that does not count


def make_way(name: str, policy: "PreTrainedModel", data: UnlearningDataModule) -> Step:
    """Return a way by its name; others' ways come with a frozen copy of the model."""
    if name == "ours":
        return make_step(policy, data)
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    return OthersWay(name, policy, reference, data.loss)


@dataclasses.dataclass(frozen=True)
class OthersWay:
    """A step on padded rectangles: `release`, `two-pass` or `dynamic`; see `lab.speed --help`."""

    name: str
    policy: "PreTrainedModel"
    reference: "PreTrainedModel"
    loss: Loss

    def __call__(self, batch: Batch) -> float:
        """Leave the gradient of the batch's loss in the policy's weights and return the loss."""
        if self.name == "release":
            batch = pad_batch(batch, RELEASE_TOKENS)
        logits = compute_logits(self.policy, batch)
        with torch.no_grad():
            original = compute_logits(self.reference, batch)
        lpl = logit_preference_loss(logits, original, batch, keys_of(self.loss, Beta).beta)
        if self.name != "dynamic":
            logits = compute_logits(self.policy, batch)
        loss = lpl + self.loss.pl_weight * preservation_loss(logits, batch)
        if batch.retain is not None:
            logits = compute_logits(self.policy, batch.retain)
            loss = loss + self.loss.retain_weight * cross_entropy(logits, batch.retain)
        loss.backward()
        return loss.item()


def compute_logits(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """Return float32 logits of all positions, (B, T, V)."""
    positions = torch.arange(batch.input_ids.shape[1], device=batch.lengths.device)
    mask = (positions < batch.lengths[:, None]).long()
    return model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits.float()


def logit_preference_loss(
    logits: torch.Tensor, original: torch.Tensor, batch: Batch, beta: float
) -> torch.Tensor:
    """Return the mean over samples of -(2 / beta) log sigmoid(beta d).

    d is the mean over a sample's unwanted tokens of z_ref - z; a sample without any adds 0.
    """
    targets, unwanted = batch.input_ids[:, 1:, None], batch.uw[:, 1:]
    policy_logit = logits[:, :-1].gather(2, targets)[..., 0]
    reference_logit = original[:, :-1].gather(2, targets)[..., 0]
    count = unwanted.sum(1)
    difference = ((reference_logit - policy_logit) * unwanted).sum(1) / count.clamp(min=1)
    return (-2 / beta * F.logsigmoid(beta * difference) * (count > 0)).mean()


def preservation_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the summed negative log-likelihood of a sample's general tokens, mean over samples."""
    labels = batch.input_ids[:, 1:].masked_fill(~batch.gw[:, 1:], IGNORED)
    nll = F.cross_entropy(logits[:, :-1].mT, labels, ignore_index=IGNORED, reduction="none")
    return nll.sum(1).mean()


def cross_entropy(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean negative log-likelihood of all answer tokens of the batch."""
    labels = batch.input_ids[:, 1:].masked_fill(~batch.answer[:, 1:], IGNORED)
    return F.cross_entropy(logits[:, :-1].mT, labels, ignore_index=IGNORED)


def pad_batch(batch: Batch, length: int) -> Batch:
    """Return the batch, and its retain samples, padded to `length` tokens."""
    longest = batch.input_ids.shape[1]
    if longest > length:
        raise ValueError(f"release: pads to {length} tokens, got a sample of {longest}")
    tensors = (batch.input_ids, batch.uw, batch.gw)
    ids, uw, gw = (F.pad(tensor, (0, length - longest)) for tensor in tensors)
    retain = None if batch.retain is None else pad_batch(batch.retain, length)
    return dataclasses.replace(batch, input_ids=ids, uw=uw, gw=gw, retain=retain)
