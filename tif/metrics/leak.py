"""How much of what a model has unlearned an attack brings back: the number of `tif audit`.

Called by evaluation/audit.py. A question is the unit of the bootstrap, and a draw takes the same
questions from all three models.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tif.metrics.intervals import Interval, draw_counts, middle_interval
from tif.metrics.values import Floats

LEAST_DIFFERENCE = 0.01  # of target and retain model: below it nothing is divided


@dataclasses.dataclass(frozen=True)
class LeakRow:
    """What an attack yields from three models, and the leak.

    Attributes:
        target, unlearned, retain: means over the questions; None where there are none.
        leak: None where it is not defined.
        interval: bootstrap interval of the leak; None where there are no values by question.
        reason: why the leak is not defined, in words; "" where it is.
    """

    target: float | None
    unlearned: float | None
    retain: float | None
    leak: float | None = None
    interval: Interval | None = None
    reason: str = ""


def leak(target: float, unlearned: float, retain: float) -> float | None:
    """Return which share of what only the target model yields the unlearned model yields too.

    Formula: (unlearned - retain) / (target - retain), each the mean over the forget questions of
    what an attack yields; not defined where target and retain model differ by less than 0.01, or
    where the 95 % bootstrap interval of their difference holds 0. Range: mostly 0 to 1; below 0
    where the unlearned model yields less than the retain model. Better: 0, from either side.
    Perfect unlearning: 0. Source: ours; TOFU's idea that the retain model is the measure.
    """
    difference = target - retain
    return (unlearned - retain) / difference if abs(difference) >= LEAST_DIFFERENCE else None


def leak_of_questions(
    values: Mapping[str, Sequence[float | None]], draws: int, seed: int
) -> LeakRow:
    """Return the leak of a measure with its interval.

    Args:
        values: by role (target, unlearned, retain), (N,) values of the same questions; a question
            without a value for one of them is left out.
        draws, seed: of the bootstrap.
    """
    roles = ("target", "unlearned", "retain")
    rows = zip(*(values[role] for role in roles), strict=True)
    complete = [row for row in rows if None not in row]
    if not complete:
        return LeakRow(None, None, None, reason="no question has a value")
    columns = np.array(complete, dtype=np.float64)
    target, unlearned, retain = columns.mean(0).tolist()
    share = leak(target, unlearned, retain)
    counts = draw_counts(len(columns), draws, seed, "forget")
    drawn = counts @ columns / len(columns)
    differences = drawn[:, 0] - drawn[:, 2]
    low, high = middle_interval(differences)
    if share is None or low <= 0 <= high:
        return LeakRow(target, unlearned, retain, reason="target and retain model do not differ")
    return LeakRow(target, unlearned, retain, share, _ratio_interval(drawn, differences))


def _ratio_interval(drawn_D3: Floats, differences_D: Floats) -> Interval:
    """Return the interval of the leaks of D draws; those where the two do not differ are left out.

    That is less than 5 % of the draws, or the leak would not be defined.
    """
    usable = np.abs(differences_D) >= LEAST_DIFFERENCE / 2
    gained = drawn_D3[usable, 1] - drawn_D3[usable, 2]
    return middle_interval(gained / differences_D[usable])
