"""Simulate how often 95 % intervals cover the true value: ours, and others.

    python -m lab.interval_coverage [repetitions]

Answers are right or wrong; how well an author is known is drawn from a beta distribution, so that
the answers about one author correlate. Each line of the table has the share of the repetitions
(2,000) whose interval holds the true share: of the percentile bootstrap over questions (2,000
draws), of the same over authors, and of tif.metrics.intervals. The ends of the bootstrap of n
questions that are right or wrong are quantiles of a binomial distribution, so nothing is drawn.
"""

import sys
from typing import Any

import numpy as np
import scipy.stats

from tif.metrics.intervals import SHARE, mean_interval
from tif.reports.columns import markdown_table
from tif.utils.terminal import track

# Authors, questions about each, true share, correlation of the answers about an author.
CASES = (
    (20, 20, 0.5, 0.0), (20, 20, 0.5, 0.1), (20, 20, 0.5, 0.3), (4, 20, 0.5, 0.0),
    (4, 20, 0.5, 0.1), (4, 20, 0.5, 0.3), (2, 20, 0.5, 0.0), (2, 20, 0.5, 0.1), (2, 20, 0.5, 0.3),
    (40, 1, 0.05, 0.0), (20, 20, 0.05, 0.0), (20, 20, 0.05, 0.1), (20, 20, 0.05, 0.3),
)  # fmt: skip
HEADER = ["authors", "questions each", "true share", "correlation", "over questions",
          "over authors", "tif", "its width"]  # fmt: skip
DRAWS = 2000


def draw_answers(
    generator: np.random.Generator, case: tuple[int, int, float, float]
) -> np.ndarray[Any, Any]:
    """Return (authors, questions each), 1 = right."""
    authors, questions, share, correlation = case
    known = np.full(authors, share)
    if correlation:
        size = (1 - correlation) / correlation
        known = generator.beta(share * size, (1 - share) * size, authors)
    return (generator.random((authors, questions)) < known[:, None]).astype(float)


def measure_coverage(case: tuple[int, int, float, float], repetitions: int) -> list[float]:
    """Return the coverage of the three intervals, and the mean width of ours."""
    authors, questions, share, _ = case
    generator = np.random.default_rng(0)
    groups = [f"author/{number // questions}" for number in range(authors * questions)]
    hits, width = np.zeros(3), 0.0
    for _ in range(repetitions):
        answers = draw_answers(generator, case)
        count, right = answers.size, answers.mean()
        over_questions = scipy.stats.binom.ppf([0.025, 0.975], count, right) / count
        rows = generator.integers(authors, size=(DRAWS, authors))
        over_authors = np.quantile(answers.mean(1)[rows].mean(1), [0.025, 0.975])
        ours = mean_interval(answers.ravel(), groups, SHARE)
        assert ours is not None
        for number, (low, high) in enumerate((over_questions, over_authors, ours)):
            hits[number] += low <= share <= high
        width += ours[1] - ours[0]
    return [*(hits / repetitions), width / repetitions]


def main(words: list[str]) -> int:
    """Print the table of coverage."""
    repetitions = int(words[0]) if words else 2000
    lines = [HEADER]
    for case in track(CASES, "coverage"):
        numbers = [f"{number:.2f}" for number in measure_coverage(case, repetitions)]
        lines.append([*(f"{value:g}" for value in case), *numbers])
    print(markdown_table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
