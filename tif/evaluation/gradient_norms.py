"""Gradient norms of texts: what the membership attack of that name needs of a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tif.data.encoding import Encoded, collate
from tif.scoring.token_scores import score_tokens
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gradient_norms(model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int) -> list[float]:
    """`membership.gradient_norm` of each text, one at a time; shared out to all processes.

    Args:
        model: a causal LM; its mode, its gradients and which weights take one are restored.
        texts: with an answer token at a position > 0.
        pad_id: padding's id.
    """
    training, weights = model.training, list(model.parameters())
    before = [(weight.requires_grad, weight.grad) for weight in weights]
    model.eval()

    def work(index: Sequence[int]) -> list[float]:
        batch = collate([texts[i] for i in index], index, pad_id).to(model.device)
        with torch.enable_grad():
            loss = -score_tokens(model, batch, "padded").logprob.sum() / batch.answer[:, 1:].sum()
            norms = [
                g.float().norm().item() for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None
            ]
        return [sum(norms) / len(norms)]

    for weight in weights:
        weight.requires_grad_(weight.is_floating_point())
    try:
        return share_work([[i] for i in range(len(texts))], work, "gradient norms", model)
    finally:
        model.train(training)
        for weight, (asked, gradient) in zip(weights, before, strict=True):
            weight.requires_grad_(asked)
            weight.grad = gradient
