"""States of torch that hold for a block: a seed, evaluation mode. What a module's code says.

Called where models are made and evaluated.
"""

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator

import torch

NOISE = "jitter|layerdrop"  # attributes of modules of transformers


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
        set_training_mode(model, was_training)


def set_training_mode(model: torch.nn.Module, is_training: bool = True) -> None:
    """Put a model into training or evaluation mode, without the noise that it would add itself.

    Routers of Mixtral, MiniMax and DBRX multiply what they read by random numbers while they learn,
    Phi-MoE's also draws its experts, BART and OPT leave layers out. The reference does not, and a
    policy must start from the reference's scores: so modules with such noise stay in evaluation
    mode. Their keys are not set to 0, since Phi-MoE's router reads its key in evaluation mode too.
    """
    model.train(is_training)
    for module, _ in find_noise(model):
        module.training = False


def find_noise(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str]]:
    """Return (module, name of its attribute) for all noise that is not 0."""
    noise = []
    for module in model.modules():
        for name, value in vars(module).items():
            if re.search(NOISE, name) and isinstance(value, float | int) and value:
                noise.append((module, name))
    return noise


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
