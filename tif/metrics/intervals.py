"""Bootstrap intervals: how far a metric could be off because of the questions that were drawn.

Called by metrics/results.py, metrics/membership.py and metrics/muse.py. A question is the unit:
each draw takes as many questions as the set has, with replacement, and computes the metric of
those; the interval holds the middle 95 % of the draws. Draws belong to (seed, set name): all
metrics of a set share them, whatever other sets there are, and nothing else reads or moves that
generator.

scipy.stats.bootstrap gives the same interval of a single mean (tested). It has no draws that
several metrics share, which `utility/model` and paired comparisons need, and refuses a set of one
question.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tif.metrics.tofu import model_utility
from tif.metrics.values import Floats

LEVEL = 0.95
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]


@lru_cache(maxsize=4)  # all metrics of a set read the same draws
def draw_counts(questions: int, draws: int, seed: int, name: str) -> Ints:
    """Return how often each question of set `name` is drawn: (draws, questions) int.

    Each row sums to `questions`.
    """
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows = np.arange(draws)[:, None] * questions
    drawn = generator.integers(questions, size=(draws, questions)) + rows
    return np.bincount(drawn.ravel(), minlength=draws * questions).reshape(draws, questions)


def middle_interval(drawn: Floats) -> Interval:
    """Return the lower and upper end of the middle `LEVEL` of (draws,) values."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_intervals(
    sets: Mapping[str, Mapping[str, Floats | None]], draws: int, seed: int
) -> dict[str, Interval | None]:
    """Return the intervals of `<set>/<metric>` and `utility/model`; None where there is no value.

    Args:
        sets: by set name, the metrics' values question by question, see `tofu.question_values`.
        draws, seed: how many, and their owner.
    """
    drawn: dict[str, Floats | None] = {}
    for name, metrics in sets.items():
        for metric, values in metrics.items():
            drawn[f"{name}/{metric}"] = None
            if values is not None:
                counts = draw_counts(len(values), draws, seed, name)
                drawn[f"{name}/{metric}"] = counts @ values / len(values)
    drawn["utility/model"] = model_utility(drawn)
    intervals: dict[str, Interval | None] = {}
    for label, means in drawn.items():
        intervals[label] = None if means is None else middle_interval(means)
    return intervals


def forget_quality_interval(
    ratios: Floats, retain_ratios: Floats, draws: int, seed: int
) -> Interval:
    """Return the interval of forget quality; a draw takes the same questions from both models.

    It leans to small values: drawing anew adds differences between the two distributions and never
    removes them, so a value near 1 may lie above its interval. Two equal models have 1 to 1.

    Args:
        ratios, retain_ratios: (N,) truth ratios of both models, or their logarithms.
        draws, seed: how many, and their owner.
    """
    counts = draw_counts(len(ratios), draws, seed, "forget")
    return middle_interval(ks_pvalues(ratios, retain_ratios, counts))


def ks_pvalues(ratios: Floats, retain_ratios: Floats, counts: Ints) -> Floats:
    """Return (draws,) exact two-sided p-values, with question i drawn `counts[:, i]` times.

    scipy.stats.ks_2samp gives the same to 1e-11 (tested), draw by draw and ten times as slow.
    """
    both = np.concatenate([ratios, retain_ratios])
    order = np.argsort(both, kind="stable")
    lead = np.concatenate([counts, -counts], axis=1)[:, order].cumsum(1)
    is_last_of_equals = np.append(np.diff(both[order]) > 0, True)
    largest = np.abs(lead[:, is_last_of_equals]).max(1)
    distances, inverse = np.unique(largest, return_inverse=True)
    return np.array([_ks_pvalue(len(ratios), int(distance)) for distance in distances])[inverse]


def _ks_pvalue(n: int, distance: int) -> float:
    # P(n D >= d) of two samples of n: 2 sum over k >= 1 of (-1)^(k+1) C(2n, n - k d) / C(2n, n).
    if distance == 0:
        return 1.0
    log_factorial = np.append(0, np.cumsum(np.log(np.arange(1, 2 * n + 1))))
    steps = np.arange(distance, n + 1, distance)
    terms = np.exp(2 * log_factorial[n] - log_factorial[n - steps] - log_factorial[n + steps])
    terms[1::2] *= -1
    return float(np.clip(2 * terms.sum(), 0, 1))
