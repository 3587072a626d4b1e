"""A batch in parts that a device holds at once, the same for every process."""

import math
from collections.abc import Sequence


def split(lengths: Sequence[int], budget: int, processes: int = 1, padded: bool = False) -> list[list[int]]:
    """Positions of a batch's samples, in parts of at most `budget` tokens and of about the same size.

    A part holds samples of about the same length. Part i belongs to process i modulo `processes`; each has as many,
    and some are empty where there are fewer samples than processes.

    Args:
        lengths: tokens of each sample.
        budget: tokens of a part; a longer sample is a part of its own.
        processes: that share the batch.
        padded: count the padding to a part's longest sample too.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    total = sum(lengths)
    count = processes * max(1, math.ceil(total / budget / processes))
    while True:
        parts: list[list[int]] = [[] for _ in range(count)]
        before = 0
        for i in order:
            parts[int((before + lengths[i] / 2) / total * count)].append(i)
            before += lengths[i]
        if all(len(part) < 2 or _tokens([lengths[i] for i in part], padded) <= budget for part in parts):
            return parts
        count += processes


def _tokens(lengths: Sequence[int], padded: bool) -> int:
    return len(lengths) * max(lengths) if padded else sum(lengths)
