"""Split a batch into parts that fit a device, the same for every number of processes.

Called by `training.module` for each step.
"""

import math
from collections.abc import Sequence


def split_batch(
    lengths: Sequence[int], budget: int, processes: int = 1, padded: bool = False
) -> list[list[int]]:
    """Return the positions of a batch's samples in parts of about the same number of tokens.

    Samples of similar length share a part. Part i belongs to process i modulo `processes`. Every
    process gets the same number of parts; some are empty where there are fewer samples than
    processes.

    Args:
        lengths: tokens of each sample.
        budget: most tokens of a part; a longer sample is a part of its own.
        processes: number of processes that share the batch.
        padded: whether the padding to a part's longest sample counts too.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    total = sum(lengths)
    count = processes * max(1, math.ceil(total / budget / processes))
    while True:
        parts: list[list[int]] = [[] for _ in range(count)]
        before = 0  # tokens of the samples before this one
        for i in longest_first:
            parts[int((before + lengths[i] / 2) / total * count)].append(i)
            before += lengths[i]
        if all(_fits([lengths[i] for i in part], budget, padded) for part in parts):
            return parts
        count += processes


def _fits(lengths: Sequence[int], budget: int, padded: bool) -> bool:
    """Return whether a part is within the budget or has a single sample."""
    size = max(lengths, default=0) * len(lengths) if padded else sum(lengths)
    return len(lengths) < 2 or size <= budget
