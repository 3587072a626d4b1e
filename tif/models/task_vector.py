"""Task arithmetic: hold weights moved as far to the other side of where they started. Called by UnlearningModule."""

import contextlib
from collections.abc import Iterator, Sequence

import torch


@contextlib.contextmanager
def negated_weights(
    model: torch.nn.Module, initial: Sequence[torch.Tensor], alpha: float
) -> Iterator[None]:
    """Hold initial - alpha * (trained - initial) in the model's weights inside the block.

    arXiv 2212.04089, trained on the forget set; as jaechan-repo/muse_bench baselines/baselines/task_vector.py.

    Args:
        model: with floating-point weights only.
        initial: its weights before training, in the order of `model.parameters()`, on any device.
        alpha: > 0; larger values forget more.
    """
    weights = list(model.parameters())
    trained = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, value in zip(weights, initial, strict=True):
            start = value.to(weight)
            weight.copy_(start - alpha * (weight - start))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, trained, strict=True):
                weight.copy_(value)
