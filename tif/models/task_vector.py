"""Task arithmetic (`loss.task_vector`): weights on the other side of where they started.

Called by UnlearningModule. arXiv 2212.04089, trained on the forget set; as
jaechan-repo/muse_bench baselines/baselines/task_vector.py.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch


@contextlib.contextmanager
def negated_weights(
    model: torch.nn.Module, initial: Sequence[torch.Tensor], alpha: float
) -> Iterator[None]:
    """Hold initial - alpha * (trained - initial), alpha > 0, in the weights inside the block.

    `initial`: the floating-point weights before training, in the order of `model.parameters()`.
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
