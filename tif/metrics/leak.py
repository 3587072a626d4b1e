"""How much of what a model has unlearned an attack brings back: the number of `tif audit`.

The unit of the intervals is what shares a subject, as in metrics/intervals.py; what is left out is
left out of all three models.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tif.metrics import intervals
from tif.metrics.intervals import Groups, Interval, leave_one_out
from tif.metrics.registry import register_metric
from tif.metrics.values import Floats

LEAST_DIFFERENCE = 0.01  # of target and retain model: below it nothing is divided


@dataclasses.dataclass(frozen=True)
class LeakRow:
    """What an attack yields from three models, and the leak.

    Attributes:
        target, unlearned, retain: means over the questions; None where there are none.
        leak: None where it is not defined.
        interval: of the leak; None where it is not defined.
        reason: why the leak is not defined, in words; "" where it is.
    """

    target: float | None
    unlearned: float | None
    retain: float | None
    leak: float | None = None
    interval: Interval | None = None
    reason: str = ""


@register_metric("audit/leak", "leak", better="→ 0")
def leak(target: float, unlearned: float, retain: float) -> float | None:
    """Return which share of what only the target model yields the unlearned model yields too.

    Formula: (unlearned - retain) / (target - retain), each the mean over the forget questions of
    what an attack yields; not defined where target and retain model differ by less than 0.01, or
    where the 95 % interval of their difference holds 0. Range: mostly 0 to 1; below 0
    where the unlearned model yields less than the retain model. Better: 0, from either side.
    Perfect unlearning: 0. Source: ours; TOFU's idea that the retain model is the measure.
    """
    difference = target - retain
    return (unlearned - retain) / difference if abs(difference) >= LEAST_DIFFERENCE else None


def leak_of_questions(values: Mapping[str, Sequence[float | None]], groups: Groups) -> LeakRow:
    """Return the leak of a measure with its interval.

    Args:
        values: by role (target, unlearned, retain), (N,) values of the same questions; a question
            without a value for one of them is left out.
        groups: (N,) of the questions.
    """
    columns = [values[role] for role in ("target", "unlearned", "retain")]
    known = [row for row in zip(groups, *columns, strict=True) if None not in row]
    if not known:
        return LeakRow(None, None, None, reason="no question has a value")
    units = [group for group, *_ in known]
    rows_N3 = np.array([numbers for _, *numbers in known], dtype=np.float64)
    target, unlearned, retain = rows_N3.mean(0).tolist()
    row = LeakRow(target, unlearned, retain)
    if len(set(units)) < 2:
        unit = units[0].partition("/")[0]
        return dataclasses.replace(row, reason=f"one {unit} is not enough for an interval")
    share = leak(target, unlearned, retain)
    above_N2 = rows_N3[:, [1, 0]] - rows_N3[:, 2:]
    interval = ratio_interval(above_N2[:, 0], above_N2[:, 1], units)
    if share is None or interval is None:
        return dataclasses.replace(row, reason="target and retain model do not differ")
    return dataclasses.replace(row, leak=share, interval=interval)


def ratio_interval(above: Floats, below: Floats, groups: Groups) -> Interval | None:
    """Return the interval of mean(above) / mean(below), both (N,) values of the same questions.

    Fieller 1954: all ratios r at which the t-test of mean(above - r * below) does not reject 0.

    Returns:
        None where the interval of mean(below) holds 0: no ratio can be excluded then.
    """
    top, bottom = above.mean(), below.mean()
    left_out = np.stack([leave_one_out(values, groups) for values in (above, below)])
    count = left_out.shape[1]
    # Squared errors of both means and of what they share, in units of the interval's half width.
    errors = np.cov(left_out, bias=True) * (count - 1) * intervals.t_quantile(count - 1) ** 2
    a, b = bottom**2 - errors[1, 1], top * bottom - errors[0, 1]
    c = top**2 - errors[0, 0]
    if a <= 0:
        return None
    root = np.sqrt(max(b**2 - a * c, 0.0))
    low, high = (b - root) / a, (b + root) / a
    if not above.any():  # not one event: the exact limit, to either side
        spread = intervals.measure_spread(left_out[0], groups)
        margin = intervals.no_event_limit([spread]) / abs(bottom)
        low, high = -margin, margin
    return float(low), float(high)
