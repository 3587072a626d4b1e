"""Work shared out to all processes of a run, with the same results for any number of them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from tif.utils.terminal import bar

T = TypeVar("T")


def shared_out(
    batches: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Sequence[T]], title: str, model: torch.nn.Module
) -> list[T]:
    """Run `work` on every batch, each in one process, and give all results to all processes.

    The batches are the same for any number of processes, so the results are too, to the last bit (on the same kind of
    device with the same number of threads). A model whose weights are themselves spread over the processes (FSDP2)
    needs all of them for each forward: then every process does all batches.

    Args:
        batches: indices that together are 0, 1, ..., n - 1.
        work: a batch to one result for each of its indices.
        title: of the progress bar, which counts this process's indices.
        model: what `work` runs.

    Returns:
        The result of each index, in order.
    """
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    rank = dist.get_rank() if world > 1 else 0
    spread = world > 1 and not _sharded(model)
    own = batches[rank::world] if spread else batches
    found: dict[int, T] = {}
    with bar(title, sum(map(len, own))) as line:
        for batch in own:
            found |= zip(batch, work(batch), strict=True)
            line.advance(len(batch))
    if spread:
        parts: list[dict[int, T]] = [{} for _ in range(world)]
        dist.all_gather_object(parts, found)
        found = {i: result for part in parts for i, result in part.items()}
    return [found[i] for i in range(len(found))]


def agreed(value: T) -> T:
    """The first process's value, in all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def _sharded(model: torch.nn.Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in model.parameters())
