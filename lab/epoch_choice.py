"""Simulate how much the choice of an epoch raises its P(forget quality > 0.05).

    python -m lab.epoch_choice [repetitions]

Ten epochs of a run are equally good: their truth ratios (on a log scale) are normal and lie a shift
away from the retain model's, on 40 questions about four authors. Half of the variance of a question
is one draw for all epochs. The four columns, over 2,000 repetitions: the last epoch on all
questions; the epoch with the highest forget quality, on all questions; that with the highest on one
half of the authors, on the other half; and the last epoch on that half, which has no choice in it.
"""

import sys

import numpy as np
from scipy.stats import ks_2samp

from tif.metrics.choice import split_groups
from tif.reports.columns import markdown_table
from tif.utils.terminal import track

EPOCHS, AUTHORS, QUESTIONS = 10, 4, 10
SHIFTS = (0.3, 0.35, 0.65)  # in standard deviations
HEADER = ["shift", "last epoch", "chosen on all, reported on all", "chosen on one half, "
          "reported on the other", "last epoch on the other half"]  # fmt: skip


def measure_choice(shift: float, repetitions: int) -> list[float]:
    """Return the share of repetitions with a p-value above 0.05, for each of the four columns."""
    generator, passed = np.random.default_rng(0), np.zeros(4)
    groups = [f"author/{number // QUESTIONS}" for number in range(AUTHORS * QUESTIONS)]
    choosing, _ = split_groups([groups])
    chooses = np.array([group in choosing for group in groups])
    for _ in range(repetitions):
        retain, shared = generator.normal(size=(2, len(groups)))
        noise = generator.normal(size=(EPOCHS, len(groups)))
        ratios = shift + (shared + noise) / 2**0.5
        everything, half, other = (
            np.array([ks_2samp(row[part], retain[part]).pvalue for row in ratios])
            for part in (np.full(len(groups), True), chooses, ~chooses)
        )
        passed += [everything[-1] > 0.05, everything.max() > 0.05,
                   other[half.argmax()] > 0.05, other[-1] > 0.05]  # fmt: skip
    return list(passed / repetitions)


def main(words: list[str]) -> int:
    """Print the table."""
    repetitions = int(words[0]) if words else 2000
    lines = [HEADER]
    for shift in track(SHIFTS, "epochs"):
        numbers = [f"{number:.2f}" for number in measure_choice(shift, repetitions)]
        lines.append([f"{shift:g}", *numbers])
    print(markdown_table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
