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
        tokens_before = 0
        for i in longest_first:
            middle = tokens_before + lengths[i] / 2
            parts[int(middle / total * count)].append(i)
            tokens_before += lengths[i]
        if all(_fits([lengths[i] for i in part], budget, padded) for part in parts):
            return parts
        count += processes


def _fits(lengths: Sequence[int], budget: int, padded: bool) -> bool:
    """Return whether a part is within the budget or has a single sample."""
    if len(lengths) < 2:
        return True
    tokens = len(lengths) * max(lengths) if padded else sum(lengths)
    return tokens <= budget
