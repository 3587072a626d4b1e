"""Unlearning losses as compositions: a forget term on a mask, a preservation term on GW, a retain term.

`FORGET` and `RETAIN` are the tables of terms by the names that `loss.forget` and `loss.retain` take. Terms are pure
functions of what `tif.losses.terms.Inputs` holds.
"""

import dataclasses
import importlib
from typing import NamedTuple

import torch

from tif.config.schema import Loss
from tif.data.encoding import Batch
from tif.losses import ascent, distributions, finetune, preference, tpo
from tif.losses.terms import Inputs, Scored, ScoredBatch, Term

FORGET: dict[str, Term] = {
    "lpl": tpo.lpl,
    "npo": preference.npo,
    "simnpo": preference.simnpo,
    "ga": ascent.ga,
    "wga": ascent.wga,
    "satimp": ascent.satimp,
    "idk": preference.idk,
    "dpo": preference.dpo,
    "kto": preference.kto,
    "undial": distributions.undial,
    "ceu": distributions.ceu,
    "pdu": distributions.pdu,
    "muse_logit_npo": distributions.muse_logit_npo,
    "rmu": distributions.rmu,
    "whp": distributions.whp,
    "ce": finetune.ce,
}
RETAIN: dict[str, Term] = {"ce": finetune.ce, "kl": distributions.kl, "hidden": distributions.hidden}


@dataclasses.dataclass
class LossTerms:
    """`total` is minimised; `parts` are logged under their names, unweighted."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


class BatchCounts(NamedTuple):
    """Sizes of the whole batch of an optimizer step; tokens as () long tensors on the batch's device.

    Attributes:
        samples: forget samples.
        forget: tokens that the forget term sees.
        unwanted: tokens of unwanted words.
        retain, alternate: answer tokens of the retain samples and of the alternates.
    """

    samples: int
    forget: torch.Tensor
    unwanted: torch.Tensor
    retain: torch.Tensor
    alternate: torch.Tensor


def count_batch(batch: Batch, cfg: Loss) -> BatchCounts:
    """The sizes of `batch`, for `compute` of its parts."""
    uw, gw = batch.uw[:, 1:], batch.gw[:, 1:]
    none = torch.zeros((), dtype=torch.long, device=uw.device)
    retain, alternate = (b.answer[:, 1:].sum() if b else none for b in (batch.retain, batch.alternate))
    return BatchCounts(len(batch.ids), _mask(uw, gw, cfg).sum(), uw.sum(), retain, alternate)


def whole_batch_key(cfg: Loss) -> str | None:
    """The key, with its value, for which a batch cannot be scored in parts; None where it can."""
    if not get_forget_term(cfg).needs_whole_batch(cfg):
        return None
    return f"loss.lpl_reduction={cfg.lpl_reduction}" if cfg.forget == "lpl" else f"loss.forget={cfg.forget}"


def get_forget_term(cfg: Loss) -> Term:
    """The term that `cfg.forget` names.

    Raises:
        ValueError: If it is module:function and there is no such `Term`.
    """
    if cfg.forget in FORGET:
        return FORGET[cfg.forget]
    module, name = cfg.forget.split(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ValueError(f"loss.forget: {cfg.forget} is not there ({error}); want module:function, found from the "
                         "working directory or installed") from None  # fmt: skip
    if not isinstance(found, Term):
        raise ValueError(f"loss.forget: {cfg.forget} is no term; want a function under @tif.losses.terms.term(...)")
    return found


def get_retain_term(cfg: Loss) -> Term | None:
    """Return the term that `cfg.retain` names; None for `none`."""
    return RETAIN.get(cfg.retain)


def required_reference(cfg: Loss, train: str = "forget") -> str:
    """What the loss needs of the original model: none, scores (of the forget samples: can be cached) or model.

    `train`: data.train; a stage inherits keys that only an unlearning run reads.
    """
    if cfg.is_whp_at_inference(train):
        return "model"
    term, retain = get_forget_term(cfg), get_retain_term(cfg)
    whole = [t.per_token(cfg).reference for t in (term, retain) if t and t.per_token]
    if any(whole) or (term.reference and term.alternate):
        return "model"
    return "scores" if term.reference else "none"


def hidden_layer(cfg: Loss) -> int | None:
    """The decoder layer whose hidden states the loss reads, counted from 0; None = none."""
    terms = (get_forget_term(cfg), get_retain_term(cfg))
    layers = [t.per_token(cfg).layer for t in terms if t and t.per_token]
    return next((found for found in layers if found is not None), None)


def compute_loss(
    scored: ScoredBatch,
    batch: Batch,
    cfg: Loss,
    retain_weight: torch.Tensor | float | None = None,
    counts: BatchCounts | None = None,
) -> LossTerms:
    """The loss that `cfg` composes, or the share of a part of the batch in it.

    Args:
        scored: what the models say of the batch's forget, retain and alternate samples.
        batch: its masks say which tokens are unwanted and general.
        cfg: the `loss` section.
        retain_weight: in place of cfg.retain_weight, where that moves (`loss.dual`).
        counts: sizes of the batch that `batch` is a part of; None = it is the batch. The parts' values add up.

    Returns:
        LossTerms: total = forget_weight * forget + pl_weight * pl + retain_weight * (retain - dual.limit or 0).
    """
    counts = counts or count_batch(batch, cfg)
    uw, gw = batch.uw[:, 1:], batch.gw[:, 1:]
    forget, retain, alternate = scored.forget, scored.retain, scored.alternate
    inputs = Inputs(
        forget.policy, _mask(uw, gw, cfg), forget.reference, forget.token_values, _alternate(batch, alternate, counts),
        counts.samples, counts.forget,
    )  # fmt: skip
    if cfg.forget == "ce":  # reads no other key, so that stages are the same under every method
        value = finetune.cross_entropy(inputs)
        return LossTerms(value, {"ce": value})
    parts = {cfg.forget.rpartition(":")[2]: get_forget_term(cfg)(inputs, cfg)}
    total = cfg.forget_weight * next(iter(parts.values()))
    if cfg.preserve == "pl":
        parts["pl"] = tpo.preservation_loss(forget.policy, gw, cfg.pl_reduction, counts.samples)
        total = total + cfg.pl_weight * parts["pl"]
    if cfg.retain != "none":
        assert batch.retain is not None
        assert retain is not None
        answer = batch.retain.answer[:, 1:]
        retain_inputs = Inputs(
            retain.policy, answer, retain.reference, retain.token_values, None, counts.samples, counts.retain
        )
        parts["retain"] = RETAIN[cfg.retain](retain_inputs, cfg)
        weight = cfg.retain_weight if retain_weight is None else retain_weight
        total = total + weight * (parts["retain"] - (cfg.dual.limit or 0) * len(batch.ids) / counts.samples)
    if forget.reference is not None:
        parts |= tpo.unwanted_word_changes(forget.policy, forget.reference, uw, counts.unwanted)
    return LossTerms(total, parts)


def _mask(uw: torch.Tensor, gw: torch.Tensor, cfg: Loss) -> torch.Tensor:
    """(B, T-1) bool: the tokens that the forget term sees."""
    answer = uw | gw
    if cfg.forget == "ce":
        return answer
    return (uw if cfg.on == "uw" else answer) & (answer.cumsum(1) > cfg.skip)


def _alternate(batch: Batch, scored: Scored | None, counts: BatchCounts) -> Inputs | None:
    if scored is None:
        return None
    assert batch.alternate is not None
    answer = batch.alternate.answer[:, 1:]
    return Inputs(scored.policy, answer, scored.reference, samples=counts.samples, tokens=counts.alternate)
