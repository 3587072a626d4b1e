"""Losses as compositions: a forget term on weighted tokens, a preservation and a retain term.

`UnlearningModule` calls `compute_loss` with the scores of a batch; `FORGET` and `RETAIN` are the
tables of terms by the names that `loss.forget` and `loss.retain` take. Importing this package
registers tif's own terms, whose keys become keys of section `loss`: it is imported before a
configuration is read.
"""

import dataclasses
from typing import NamedTuple, cast

import torch

from tif.config import registry
from tif.config.loss import Loss, keys_of, make_loss
from tif.data.encoding import Batch
from tif.losses import distributions, guess, likelihood, preference, tpo
from tif.losses.terms import FORGET, RETAIN, Inputs, Scored, ScoredBatch, Term
from tif.scoring.token_scores import PerToken

__all__ = [
    "FORGET", "RETAIN", "BatchCounts", "LossTerms", "compute_loss", "count_batch",
    "distributions", "get_forget_term", "get_retain_term", "group_size", "guess", "hidden_layer",
    "make_loss", "preference", "required_reference",
]  # fmt: skip


@dataclasses.dataclass
class LossTerms:
    """`total` is minimised; `parts` are logged under their names, unweighted."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


class BatchCounts(NamedTuple):
    """Sizes of the whole batch of an optimizer step; tokens as () tensors on the batch's device.

    Attributes:
        samples: forget samples.
        forget: sum of the weights that the forget term sees.
        unwanted: tokens of unwanted words.
        retain, alternate: answer tokens of the retain samples and of the alternates.
    """

    samples: int
    forget: torch.Tensor
    unwanted: torch.Tensor
    retain: torch.Tensor
    alternate: torch.Tensor


def count_batch(batch: Batch, loss: Loss) -> BatchCounts:
    """Return the sizes of `batch`, for `compute_loss` of its parts."""
    uw = batch.uw[:, 1:]
    others = []
    for samples in (batch.retain, batch.alternate):
        others.append(samples.answer[:, 1:].sum() if samples else torch.zeros_like(uw.sum()))
    return BatchCounts(len(batch.ids), _forget_weight(batch, loss).sum(), uw.sum(), *others)


def get_forget_term(loss: Loss) -> Term:
    """Return the term that `loss.forget` names.

    Raises:
        ConfigError: If it is module:function and there is no such `Term`.
    """
    if loss.forget in FORGET:
        return FORGET[loss.forget]
    return cast(Term, registry.import_own(loss.forget))


def get_retain_term(loss: Loss) -> Term | None:
    """Return the term that `loss.retain` names; None for `none`."""
    return RETAIN.get(loss.retain)


def group_size(loss: Loss) -> int:
    """Return how many consecutive samples of a batch must be scored together."""
    term = get_forget_term(loss)
    return loss.micro_batch if term.has_groups(keys_of(loss, term.keys)) else 1


def required_reference(loss: Loss, train: str = "forget") -> str:
    """Return what the loss reads from the original model: none, scores (can be cached) or model.

    Args:
        loss: section `loss`.
        train: data.train; a stage inherits keys that only an unlearning run reads.
    """
    if loss.is_whp_at_inference(train):
        return "model"
    term = get_forget_term(loss)
    reads_new_texts = term.reference and (term.alternate or loss.has_rewordings(train))
    if any(values.reference for values in _per_token(loss)) or reads_new_texts:
        return "model"
    return "scores" if term.reference else "none"


def hidden_layer(loss: Loss) -> int | None:
    """Return the decoder layer whose hidden states the loss reads, counted from 0; None = none."""
    for values in _per_token(loss):
        if values.layer is not None:
            return values.layer
    return None


def _per_token(loss: Loss) -> list[PerToken]:
    """Return the per-token values that the loss's terms need."""
    terms = [get_forget_term(loss), get_retain_term(loss)]
    return [term.per_token(loss) for term in terms if term and term.per_token]


def compute_loss(
    scored: ScoredBatch,
    batch: Batch,
    loss: Loss,
    retain_weight: torch.Tensor | float | None = None,
    counts: BatchCounts | None = None,
) -> LossTerms:
    """Return the loss that section `loss` composes, or the share of a part of the batch in it.

    Args:
        scored: token scores of the batch's forget, retain and alternate samples.
        batch: its masks say which tokens are unwanted and general.
        loss: section `loss`.
        retain_weight: replaces loss.retain_weight, where that moves (`loss.dual`).
        counts: sizes of the batch that `batch` is a part of; None = it is the batch. The parts'
            values add up.

    Returns:
        LossTerms: total = forget_weight * forget + pl_weight * pl + retain_weight * (retain -
            dual.limit or 0).
    """
    counts = counts or count_batch(batch, loss)
    inputs = _forget_inputs(scored, batch, loss, counts)
    if loss.forget == "ce":  # reads no other key, so that stages are the same under every method
        value = likelihood.cross_entropy(inputs)
        return LossTerms(value, {"ce": value})
    forget = get_forget_term(loss)(inputs, loss)
    parts = {loss.forget.rpartition(":")[2]: forget}
    total = loss.forget_weight * forget
    if loss.preserve == "pl":
        parts["pl"] = tpo.preservation_loss(inputs.policy, batch.gw[:, 1:], loss.pl_reduction,
            counts.samples)
        total = total + loss.pl_weight * parts["pl"]
    retain_term = get_retain_term(loss)
    if retain_term:
        parts["retain"] = retain_term(_answer_inputs(scored.retain, batch.retain, counts.samples,
            counts.retain), loss)
        weight = loss.retain_weight if retain_weight is None else retain_weight
        limit = (loss.dual.limit or 0) * len(batch.ids) / counts.samples
        total = total + weight * (parts["retain"] - limit)
    if inputs.reference is not None:
        uw = batch.uw[:, 1:]
        parts |= tpo.unwanted_word_changes(inputs.policy, inputs.reference, uw, counts.unwanted)
    return LossTerms(total, parts)


def _forget_weight(batch: Batch, loss: Loss) -> torch.Tensor:
    """Return the weight of each token in the forget term, (B, T-1) float32."""
    uw, answer = batch.uw[:, 1:], batch.answer[:, 1:]
    if loss.forget == "ce":
        return answer.float()
    is_after_skip = answer.cumsum(1) > loss.skip
    return ((uw if loss.on == "uw" else answer) & is_after_skip).float()


def _forget_inputs(scored: ScoredBatch, batch: Batch, loss: Loss, counts: BatchCounts) -> Inputs:
    """Return the inputs of the forget term."""
    forget, alternate = scored.forget, None
    if scored.alternate is not None:
        alternate = _answer_inputs(scored.alternate, batch.alternate, counts.samples,
            counts.alternate)
    weight = _forget_weight(batch, loss)
    return Inputs(forget.policy, weight, forget.reference, forget.token_values, alternate,
        counts.samples, counts.forget, loss.micro_batch)


def _answer_inputs(
    scored: Scored | None, batch: Batch | None, samples: int, tokens: torch.Tensor
) -> Inputs:
    """Return a term's inputs for retain samples or alternates; all answer tokens count."""
    assert scored is not None
    assert batch is not None
    weight = batch.answer[:, 1:].float()
    return Inputs(scored.policy, weight, scored.reference, scored.token_values, None, samples,
        tokens)
