"""Gradient norms of texts, for the membership attack of that name. Called by model_numbers.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from tif.data.encoding import Encoded, collate
from tif.data.samples import Benchmark
from tif.evaluation.evaluate import build_questions
from tif.evaluation.questions import EvaluationSetup, select_samples
from tif.scoring.token_scores import score_tokens
from tif.utils.torch_state import set_training_mode
from tif.utils.work_sharing import share_work

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gradient_norms_of_sets(
    model: "PreTrainedModel", benchmark: Benchmark, setup: EvaluationSetup, context: int | None
) -> dict[str, list[float]]:
    """Return the gradient norms of the texts of a benchmark, by set; `context` is the model's."""
    norms = {}
    selected = select_samples(benchmark.sets, setup.rules, benchmark.tasks)
    for name, samples in selected.items():
        questions = build_questions(setup, name, samples, context)
        texts = [question.texts[0] for question in questions]
        norms[name] = gradient_norms(model, texts, setup.encoder.pad_id)
    return norms


def gradient_norms(model: "PreTrainedModel", texts: Sequence[Encoded], pad_id: int) -> list[float]:
    """Return for each text the mean 2-norm of its loss's gradient over the model's weight tensors.

    Divided over all processes. The model's mode, its gradients and which weights take one are
    restored.
    """
    was_training, weights = model.training, list(model.parameters())
    before = [(weight.requires_grad, weight.grad) for weight in weights]

    def measure(indices: Sequence[int]) -> list[float]:
        batch = collate([texts[i] for i in indices], indices, pad_id).to(model.device)
        with torch.enable_grad():
            logprobs = score_tokens(model, batch, "padded").logprob
            loss = -logprobs.sum() / batch.answer[:, 1:].sum()
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        norms = [gradient.float().norm().item() for gradient in gradients if gradient is not None]
        return [float(np.mean(norms))]

    model.eval()
    for weight in weights:
        weight.requires_grad_(weight.is_floating_point())
    try:
        return share_work([[i] for i in range(len(texts))], measure, "gradient norms", model)
    finally:
        set_training_mode(model, was_training)
        for weight, (requires_grad, gradient) in zip(weights, before, strict=True):
            weight.requires_grad_(requires_grad)
            weight.grad = gradient
