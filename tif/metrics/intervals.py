"""How far a metric might be off because these questions were asked and not others: bootstrap intervals.

A question is the unit: each draw takes as many questions as the set has, with replacement, and computes the metric of
those. The interval holds the middle 95 % of the draws (percentile interval). Draws belong to (seed, set): they are the
same for all metrics of a set, whatever other sets there are, and nothing else reads or moves that generator.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tif.metrics.tofu import Floats, harmonic_mean, utility_parts

LEVEL = 0.95
Ints = npt.NDArray[np.int64]
Interval = tuple[float, float]


def draw(questions: int, draws: int, seed: int, name: str) -> Ints:
    """How often each question of set `name` is taken: (draws, questions), each row sums to `questions`."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    taken = generator.integers(questions, size=(draws, questions)) + np.arange(draws)[:, None] * questions
    return np.bincount(taken.ravel(), minlength=draws * questions).reshape(draws, questions)


def interval(drawn: Floats) -> Interval:
    """The middle `LEVEL` of the draws."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_means(sets: Mapping[str, Mapping[str, Floats | None]], draws: int, seed: int) -> dict[str, Interval | None]:
    """Intervals of `<set>/<metric>` and of `utility/model`; None where there is no value.

    Args:
        sets: by name, what `tofu.values` says of each.
        draws: how many; of the order of thousands.
        seed: owner of the draws.
    """
    drawn: dict[str, Floats | None] = {}
    for name, metrics in sets.items():
        drawn |= {f"{name}/{metric}": None for metric in metrics}
        known = {metric: values for metric, values in metrics.items() if values is not None}
        questions = max(map(len, known.values()), default=0)
        if questions:
            taken = draw(questions, draws, seed, name)
            drawn |= {f"{name}/{metric}": taken @ values / questions for metric, values in known.items()}
    parts = utility_parts(drawn)
    drawn["utility/model"] = None if parts is None else harmonic_mean(parts)
    return {name: None if found is None else interval(found) for name, found in drawn.items()}


def of_forget_quality(ours: Floats, theirs: Floats, draws: int, seed: int) -> Interval:
    """Interval of the Kolmogorov-Smirnov p-value; a draw takes the same questions from both models.

    It leans to small values: drawing anew adds differences between the two distributions and never removes them, so
    a value near 1 may lie above its interval. Two equal models have 1 to 1.

    Args:
        ours: (N,), truth ratios of the model (or anything that grows with them, their logarithms for example).
        theirs: (N,), the retain model's of the same questions, in the same order.
        draws: how many.
        seed: owner of the draws.
    """
    return interval(ks_pvalues(ours, theirs, draw(len(ours), draws, seed, "forget")))


def ks_pvalues(ours: Floats, theirs: Floats, taken: Ints) -> Floats:
    """Exact two-sided two-sample p-values, (draws,), of the two samples with question i taken `taken[:, i]` times."""
    both = np.concatenate([ours, theirs])
    order = np.argsort(both, kind="stable")
    lead = np.concatenate([taken, -taken], axis=1)[:, order].cumsum(1)
    ends = np.append(np.diff(both[order]) > 0, True)  # equal values take their step together
    distances, where = np.unique(np.abs(lead[:, ends]).max(1), return_inverse=True)
    return np.array([_pvalue(len(ours), int(d)) for d in distances])[where]


def _pvalue(n: int, distance: int) -> float:
    """P(n D >= distance) for two samples of n: 2 sum over k >= 1 of (-1)^(k+1) C(2n, n - k distance) / C(2n, n)."""
    if distance == 0:
        return 1.0
    log_factorial = np.append(0, np.cumsum(np.log(np.arange(1, 2 * n + 1))))
    steps = np.arange(distance, n + 1, distance)
    terms = np.exp(2 * log_factorial[n] - log_factorial[n - steps] - log_factorial[n + steps])
    terms[1::2] *= -1
    return float(np.clip(2 * terms.sum(), 0, 1))
