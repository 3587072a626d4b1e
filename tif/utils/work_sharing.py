"""Work divided over all ranks of a run, with the same results for any number of ranks.

Called by `evaluation` for scores, generations and gradient norms.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from tif.utils.terminal import progress_bar

T = TypeVar("T")


def share_work(
    batches: Sequence[Sequence[int]],
    work: Callable[[Sequence[int]], Sequence[T]],
    title: str,
    model: torch.nn.Module,
) -> list[T]:
    """Run `work` on every batch, each on one rank, and return the results of all indices in order.

    The batches do not depend on the number of ranks, so neither do the results, to the last bit
    (on one kind of device with one number of threads). A model whose weights are sharded (FSDP2)
    needs every rank in each forward: then each rank does all batches.

    Args:
        batches: indices; together 0, 1, ..., n - 1, each once.
        work: maps a batch to one result per index; it runs `model`.
        title: of the progress bar, which counts the indices of this rank.
    """
    world_size, rank = 1, 0
    if dist.is_available() and dist.is_initialized() and not _is_sharded(model):
        world_size, rank = dist.get_world_size(), dist.get_rank()
    batches_of_rank = batches[rank::world_size]
    results: dict[int, T] = {}
    with progress_bar(title, sum(map(len, batches_of_rank))) as bar:
        for batch in batches_of_rank:
            results.update(zip(batch, work(batch), strict=True))
            bar.advance(len(batch))
    if world_size > 1:
        results_of_ranks: list[dict[int, T]] = [{} for _ in range(world_size)]
        dist.all_gather_object(results_of_ranks, results)
        for results_of_rank in results_of_ranks:
            results.update(results_of_rank)
    return [results[i] for i in range(len(results))]


def _is_sharded(model: torch.nn.Module) -> bool:
    from torch.distributed.tensor import DTensor

    return any(isinstance(weight, DTensor) for weight in model.parameters())
