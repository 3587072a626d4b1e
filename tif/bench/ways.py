"""Four ways to compute the loss of a TPO step and its gradient: ours, and three written plainly as others have them.

`release`, `two_pass` and `dynamic` share nothing with `tif.scoring` and `tif.losses`: rectangular batches, logits of
all positions, log-probabilities by torch's cross-entropy, a second model as the reference. See `python -m tif.bench
--help`.

Shapes: B samples, T tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tif import losses
from tif.data.encoding import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tif.config.schema import Loss
    from tif.training.module import UnlearningModule

RELEASE_TOKENS = 500  # the release pads every sample to as many
Way = Callable[[Batch], float]  # leaves the gradient in the policy's weights; the loss


def ours(module: "UnlearningModule") -> Way:
    """As `UnlearningModule.accumulate` on one process: in parts, packed, one forward, cached reference."""

    def step(batch: Batch) -> float:
        counts, total = losses.count_batch(batch, module.settings.loss), 0.0
        for positions in module.parts(batch):
            share = module.loss(batch.select_rows(positions), counts).total
            share.backward()
            total += share.item()
        return total

    return step


def release(policy: "PreTrainedModel", reference: "PreTrainedModel", cfg: "Loss") -> Way:
    """Padded to 500 tokens, two forwards."""
    return lambda batch: _two_forwards(policy, reference, cfg, _padded_to(batch, RELEASE_TOKENS))


def two_pass(policy: "PreTrainedModel", reference: "PreTrainedModel", cfg: "Loss") -> Way:
    """Padded to the batch's longest, two forwards."""
    return lambda batch: _two_forwards(policy, reference, cfg, batch)


def dynamic(policy: "PreTrainedModel", reference: "PreTrainedModel", cfg: "Loss") -> Way:
    """Padded to the batch's longest, one forward."""

    def step(batch: Batch) -> float:
        logits = _logits(policy, batch)
        with torch.no_grad():
            original = _logits(reference, batch)
        loss = _lpl(logits, original, batch, cfg.beta) + cfg.pl_weight * _pl(logits, batch)
        loss.backward()
        return loss.item()

    return step


def _two_forwards(policy: "PreTrainedModel", reference: "PreTrainedModel", cfg: "Loss", batch: Batch) -> float:
    logits = _logits(policy, batch)
    with torch.no_grad():
        original = _logits(reference, batch)
    loss = _lpl(logits, original, batch, cfg.beta) + cfg.pl_weight * _pl(_logits(policy, batch), batch)
    loss.backward()
    return loss.item()


def _logits(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """(B, T, V)."""
    real = torch.arange(batch.input_ids.shape[1], device=batch.lengths.device) < batch.lengths[:, None]
    return model(input_ids=batch.input_ids, attention_mask=real.long(), use_cache=False).logits.float()


def _lpl(logits: torch.Tensor, original: torch.Tensor, batch: Batch, beta: float) -> torch.Tensor:
    """-(2 / beta) log sigmoid(beta d), d the mean over a sample's unwanted tokens of z_ref - z; mean over samples."""
    targets, unwanted = batch.input_ids[:, 1:, None], batch.uw[:, 1:]
    z, z_ref = (x[:, :-1].gather(2, targets)[..., 0] for x in (logits, original))
    count = unwanted.sum(1)
    d = ((z_ref - z) * unwanted).sum(1) / count.clamp(min=1)
    return (-2 / beta * F.logsigmoid(beta * d) * (count > 0)).mean()


def _pl(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of a sample's general tokens, summed; mean over samples."""
    labels = batch.input_ids[:, 1:].masked_fill(~batch.gw[:, 1:], -100)
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return nll.sum(1).mean()


def _padded_to(batch: Batch, length: int) -> Batch:
    more = length - batch.input_ids.shape[1]
    if more < 0:
        raise ValueError(f"release: pads to {length} tokens, got a sample of {batch.input_ids.shape[1]}")
    ids, uw, gw = (F.pad(t, (0, more)) for t in (batch.input_ids, batch.uw, batch.gw))
    return Batch(batch.ids, batch.index, ids, batch.lengths, uw, gw)
