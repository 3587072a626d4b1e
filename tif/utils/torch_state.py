"""States of torch that hold for a block: a seed, evaluation mode. What a module's code says.

Called where models are made and evaluated.
"""

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set torch's random state to a seed for the block and restore it afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode without gradients for the block, then into its old mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def find_in_code(module: torch.nn.Module, pattern: str) -> set[str]:
    """Return what a pattern finds in the code of a module's class and its bases, not torch's."""
    matches: set[str] = set()
    for cls in type(module).__mro__:
        matches |= _find_in_class(cls, pattern)
    return matches


@functools.cache
def _find_in_class(cls: type, pattern: str) -> set[str]:
    if cls.__module__.startswith("torch.") or not issubclass(cls, torch.nn.Module):
        return set()
    try:
        return set(re.findall(pattern, inspect.getsource(cls)))
    except (OSError, TypeError):  # a class without a file
        return set()
