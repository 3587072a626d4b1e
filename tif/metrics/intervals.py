"""95 % intervals: how far a number could be off because of the subjects that were drawn.

The unit is the group of a record (an author, a document; see `RecordSet.groups`): questions about
one author are not independent.

The squared error of a number comes from leaving out one group at a time (the jackknife; for a mean
of equal groups it is the variance of the groups' means over their number). The interval is
Student's t with one degree of freedom less than there are groups; a share is taken on the logit
scale, so that it stays inside 0 to 1 and holds for rare events. The percentile bootstrap, which
this replaces, is too narrow for few groups. Simulated coverage: lab/interval_coverage.py. Forget
quality alone is drawn: a p-value has no derivative.

scipy.stats.bootstrap knows no groups. scipy gives the quantiles and the logit.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tif.metrics.tofu import UTILITY_PARTS, UTILITY_SETS, model_utility
from tif.metrics.values import Floats

LEVEL = 0.95
CORRELATION = 0.3  # assumed within a group where equal values show none; seen: 0.00 to 0.20
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]
Range = tuple[float, float]
ANY, SHARE = (-math.inf, math.inf), (0.0, 1.0)
Groups = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Spread:
    """What one sample of groups adds to the squared error of a number.

    Attributes:
        variance: squared standard error.
        groups: how many there are.
        questions: as many independent ones as the sample is worth if `CORRELATION` holds.
    """

    variance: float
    groups: int
    questions: float


def index_groups(groups: Groups) -> Ints:
    """Return (N,) the number of each question's group, from 0 in order of appearance."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def leave_one_out(values: Floats, groups: Groups) -> Floats:
    """Return (G,) means of (N,) values, each without one of the G groups; NaN where G is 1."""
    index = index_groups(groups)
    sums, counts = np.bincount(index, values), np.bincount(index)
    left = len(values) - counts
    return np.where(left > 0, (sums.sum() - sums) / np.maximum(left, 1), np.nan)


def measure_spread(left_out: Floats, groups: Groups) -> Spread:
    """Return the spread of a number from its values without each of the groups: (G,)."""
    count, questions = len(left_out), len(groups)
    variance = (count - 1) / count * float(((left_out - left_out.mean()) ** 2).sum())
    design = 1 + (questions / count - 1) * CORRELATION
    return Spread(variance, count, questions / design)


def count_freedom(spreads: Sequence[Spread]) -> float:
    """Return the degrees of freedom of a sum of variances (Satterthwaite 1946)."""
    total = sum(spread.variance for spread in spreads)
    parts = [spread.variance**2 / (spread.groups - 1) for spread in spreads]
    return total**2 / sum(parts) if total else 1.0


def t_quantile(freedom: float) -> float:
    """Return the half width of a 95 % interval in standard errors."""
    from scipy.special import stdtrit  # here, because reports import this file and start at once

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def t_interval(value: float, spreads: Sequence[Spread], limits: Range = ANY) -> Interval | None:
    """Return the interval of a number; None where a sample has one group only.

    Args:
        value: the number.
        spreads: of the independent samples that it is computed from.
        limits: lowest and highest value that the number can have.
    """
    if not math.isfinite(value) or min(spread.groups for spread in spreads) < 2:
        return None
    from scipy.special import expit, logit

    low, high = limits
    error = math.sqrt(sum(spread.variance for spread in spreads))
    is_share = math.isfinite(high - low)
    if is_share and value in limits:
        # Without one event (or without one miss) the exact interval of n independent questions.
        width = no_event_limit(spreads) * (high - low)
        return (low, low + width) if value == low else (high - width, high)
    half = t_quantile(count_freedom(spreads)) * error
    if not is_share:
        return max(value - half, low), min(value + half, high)
    share = (value - low) / (high - low)
    half /= (high - low) * share * (1 - share)
    ends = low + (high - low) * expit(logit(share) + np.array([-half, half]))
    return float(ends[0]), float(ends[1])


def no_event_limit(spreads: Sequence[Spread]) -> float:
    """Return the highest share at which no event is seen with 2.5 % probability."""
    return float(1 - ((1 - LEVEL) / 2) ** (1 / min(spread.questions for spread in spreads)))


def mean_interval(values: Floats, groups: Groups, limits: Range = ANY) -> Interval | None:
    """Return the interval of the mean of (N,) values; None where groups are unknown or one."""
    if len(values) != len(groups):  # of a metric that some answers do not have
        return None
    spread = measure_spread(leave_one_out(values, groups), groups)
    return t_interval(float(values.mean()), [spread], limits)


def utility_interval(
    values: Mapping[str, Floats | None], groups: Mapping[str, Groups]
) -> Interval | None:
    """Return the interval of model utility; None where it has no value.

    `values`: question by question, by the metrics' stable names; `groups`: of the sets' questions.
    """
    means: dict[str, float | Floats | None] = {}
    for label, numbers in values.items():
        means[label] = None if numbers is None else np.array(numbers.mean())
    utility = model_utility(means)
    if utility is None:
        return None
    spreads = []
    for name in UTILITY_SETS:
        # Of one set a group is left out, the others stay as they are.
        count = len(set(groups[name]))
        left_out = {label: np.full(count, mean) for label, mean in means.items()}
        for metric in UTILITY_PARTS:
            label = f"{name}/{metric}"
            numbers = values[label]
            if numbers is not None and len(numbers) == len(groups[name]):
                left_out[label] = leave_one_out(numbers, groups[name])
        utilities = model_utility(left_out)
        assert utilities is not None
        spreads.append(measure_spread(utilities, groups[name]))
    return t_interval(float(utility), spreads, SHARE)


@lru_cache(maxsize=4)
def draw_counts(groups: int, draws: int, seed: int, name: str) -> Ints:
    """Return how often each group of set `name` is drawn, with replacement: (draws, groups) int.

    Each row sums to `groups`. Draws belong to (seed, name) alone.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows = np.arange(draws)[:, None] * groups
    drawn = generator.integers(groups, size=(draws, groups)) + rows
    return np.bincount(drawn.ravel(), minlength=draws * groups).reshape(draws, groups)


def forget_quality_interval(
    ratios: Floats, retain_ratios: Floats, groups: Groups, draws: int, seed: int
) -> Interval | None:
    """Return the middle 95 % of forget quality over draws of groups, the same of both models.

    It leans to small values: drawing anew adds differences between the two distributions and never
    removes them, so a value near 1 may lie above its interval. Two equal models have 1 to 1. With
    two groups there are three different draws. None for one group.

    Args:
        ratios, retain_ratios: (N,) truth ratios of both models, or their logarithms.
        groups: of the N questions.
        draws, seed: how many, and their owner.
    """
    index = index_groups(groups)
    count = int(index.max()) + 1
    if count < 2:
        return None
    counts = draw_counts(count, draws, seed, "forget")[:, index]
    drawn = ks_pvalues(ratios, retain_ratios, counts)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ks_pvalues(ratios: Floats, retain_ratios: Floats, counts: Ints) -> Floats:
    """Return (draws,) exact two-sided p-values, with question i drawn `counts[:, i]` times.

    scipy.stats.ks_2samp gives the same to 1e-11 (tested), draw by draw and ten times as slow.
    """
    both = np.concatenate([ratios, retain_ratios])
    order = np.argsort(both, kind="stable")
    lead = np.concatenate([counts, -counts], axis=1)[:, order].cumsum(1)
    is_last_of_equals = np.append(np.diff(both[order]) > 0, True)
    largest = np.abs(lead[:, is_last_of_equals]).max(1)
    pairs, inverse = np.unique(
        np.stack([counts.sum(1), largest], axis=1), axis=0, return_inverse=True
    )
    return np.array([_ks_pvalue(int(n), int(distance)) for n, distance in pairs])[inverse.ravel()]


def _ks_pvalue(n: int, distance: int) -> float:
    # P(n D >= d) of two samples of n: 2 sum over k >= 1 of (-1)^(k+1) C(2n, n - k d) / C(2n, n).
    if distance == 0:
        return 1.0
    log_factorial = np.append(0, np.cumsum(np.log(np.arange(1, 2 * n + 1))))
    steps = np.arange(distance, n + 1, distance)
    terms = np.exp(2 * log_factorial[n] - log_factorial[n - steps] - log_factorial[n + steps])
    terms[1::2] *= -1
    return float(np.clip(2 * terms.sum(), 0, 1))
