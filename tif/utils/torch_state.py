"""States of torch that hold for a block: a seed of the random numbers, evaluation mode."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random state set to `seed` inside, and as it was outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def frozen(policy: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; the mode it had outside."""
    training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        policy.train(training)
