"""Split a batch into parts that fit a device, and put batches together."""

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from tif.data.encoding import Batch


def split_batch(
    lengths: Sequence[int], budget: int, processes: int = 1, padded: bool = False, group: int = 1
) -> list[list[int]]:
    """Return the positions of a batch's samples in parts of about the same number of tokens.

    Groups of similar length share a part. Part i belongs to process i modulo `processes`. Every
    process gets the same number of parts; some are empty where there are fewer groups than
    processes.

    Args:
        lengths: tokens of each sample.
        budget: most tokens of a part; a longer group is a part of its own.
        processes: number of processes that share the batch.
        padded: whether the padding to a part's longest sample counts too.
        group: consecutive samples that stay together, in their order; the batch's last group may be
            smaller, and stands last in its part.
    """
    groups = [range(len(lengths))[i : i + group] for i in range(0, len(lengths), group)]
    tokens = [sum(lengths[i] for i in members) for members in groups]
    longest_first = sorted(range(len(groups)), key=lambda number: (-tokens[number], number))
    total = sum(lengths)
    count = processes * max(1, math.ceil(total / budget / processes))
    while True:
        parts: list[list[int]] = [[] for _ in range(count)]
        before = 0  # tokens of the groups before this one
        for number in longest_first:
            middle = before + tokens[number] / 2
            parts[int(middle / total * count)].extend(groups[number])
            before += tokens[number]
        if all(_fits([lengths[i] for i in part], budget, padded, group) for part in parts):
            used = [part if group == 1 else sorted(part) for part in parts if part]
            return used + [[]] * (-len(used) % processes)
        count += processes


def _fits(lengths: Sequence[int], budget: int, padded: bool, group: int) -> bool:
    """Return whether a part is within the budget or has a single group."""
    size = max(lengths, default=0) * len(lengths) if padded else sum(lengths)
    return len(lengths) <= group or size <= budget


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Return one batch of all samples, as wide as the widest; pairs are left out."""
    width = max(batch.input_ids.shape[1] for batch in batches)

    def stack(name: str) -> torch.Tensor:
        tensors = [getattr(batch, name) for batch in batches]
        return torch.cat([pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    ids: list[str] = []
    for batch in batches:
        ids += batch.ids
    index = torch.cat([batch.index for batch in batches])
    lengths = torch.cat([batch.lengths for batch in batches])
    return Batch(tuple(ids), index, stack("input_ids"), lengths, stack("uw"), stack("gw"))
