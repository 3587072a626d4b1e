"""Unlearning losses as compositions: a forget term on a mask, a preservation term on GW, a retain term.

`FORGET` is the table of forget terms by the names that `loss.forget` takes. Terms are pure functions of token scores.
"""

import dataclasses
from collections.abc import Callable

import torch

from tif.data.encode import Batch
from tif.losses.finetune import cross_entropy
from tif.losses.tpo import logit_preference_loss, preservation_loss, unwanted_word_changes
from tif.schema import Loss
from tif.scoring import TokenScores


@dataclasses.dataclass
class LossTerms:
    """`total` is minimised; `parts` are logged under their names, unweighted."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


def _lpl(policy: TokenScores, reference: TokenScores | None, mask: torch.Tensor, cfg: Loss) -> torch.Tensor:
    assert reference is not None  # needs_reference says so
    return logit_preference_loss(policy, reference, mask, cfg.beta, cfg.lpl_baseline, cfg.lpl_reduction)


def _ce(policy: TokenScores, reference: TokenScores | None, mask: torch.Tensor, cfg: Loss) -> torch.Tensor:
    return cross_entropy(policy, mask)


FORGET: dict[str, Callable[[TokenScores, TokenScores | None, torch.Tensor, Loss], torch.Tensor]] = {
    "lpl": _lpl,
    "ce": _ce,
}
NEEDS_REFERENCE = {"lpl"}


def compute(
    policy: TokenScores, reference: TokenScores | None, batch: Batch, cfg: Loss, retain: TokenScores | None = None
) -> LossTerms:
    """The loss that `cfg` composes.

    Args:
        policy, reference: scores of the batch; the reference where `cfg.forget` is in NEEDS_REFERENCE.
        batch: its masks say which tokens are unwanted and general.
        cfg: the `loss` section.
        retain: the policy's scores of `batch.retain`, where cfg.retain asks for them.

    Returns:
        LossTerms: total = forget + pl_weight * pl + retain_weight * retain.
    """
    uw, gw = batch.uw[:, 1:], batch.gw[:, 1:]
    forget = FORGET[cfg.forget](policy, reference, uw if cfg.on == "uw" else uw | gw, cfg)
    total, parts = forget, {cfg.forget: forget}
    if cfg.preserve == "pl":
        parts["pl"] = preservation_loss(policy, gw, cfg.pl_reduction)
        total = total + cfg.pl_weight * parts["pl"]
    if cfg.retain == "ce":
        assert batch.retain is not None
        assert retain is not None
        parts["retain"] = cross_entropy(retain, batch.retain.answer[:, 1:])
        total = total + cfg.retain_weight * parts["retain"]
    if reference is not None:
        parts |= unwanted_word_changes(policy, reference, uw)
    return LossTerms(total, parts)
