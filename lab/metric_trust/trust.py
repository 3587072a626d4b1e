"""How far a metric can be trusted: the numbers of the study. Pure functions.

Every metric is read as knowledge first: higher where the model knows the forget set better. Source
of the protocol: open-unlearning's meta-evaluation (arXiv 2506.12618); facts and the symmetric forms
after github.com/gnueaj/unlearning-depth-score, docs/data/meta_eval.json.
"""

from collections.abc import Sequence

import numpy as np

from tif.metrics.membership import auc

TINY = 1e-12  # below it a change is none


def faithfulness(knowing: Sequence[float], ignorant: Sequence[float]) -> float:
    """Return how well a metric tells models that know the forget set from those that do not.

    Formula: AUC = P(a knowing model's value > an ignorant one's), equal values count half. Range: 0
    to 1. Better: 1; 0.5 tells nothing.
    """
    return auc([-value for value in knowing], [-value for value in ignorant])


def relearning_robustness(
    before: float, after: float, retain_before: float, retain_after: float
) -> float | None:
    """Return whether relearning moves a metric on an unlearned model no more than it should.

    Formula: min(rise of the retain model / rise of the unlearned model, 1), a rise being the
    knowledge after relearning minus that before. Range: 0 to 1. Better: 1: nothing came back that
    the retain model would not have learned as fast. 1 where the unlearned model's does not rise; 0
    where only the retain model's does not. Source: as the module, where an unlearned model that
    does not rise is left out.

    Returns:
        None where neither moves.
    """
    rise, retain_rise = after - before, retain_after - retain_before
    if abs(rise) < TINY and abs(retain_rise) < TINY:
        return None
    if rise <= TINY:
        return 1.0
    return float(min(max(retain_rise, 0.0) / rise, 1.0))


def quantisation_robustness(before: float, after: float) -> float | None:
    """Return whether 4-bit weights bring knowledge back by a metric.

    Formula: min(before / after, 1) of the knowledge. Range: 0 to 1. Better: 1. Source: as the
    module, there of metrics that fall with knowledge, with before and after exchanged.

    Returns:
        None where there is no knowledge after.
    """
    return float(min(max(before, 0.0) / after, 1.0)) if after > TINY else None


def symmetric_relearning(
    before: float, after: float, retain_before: float, retain_after: float
) -> float | None:
    """Return how similarly relearning moves a metric on the unlearned and on the retain model.

    Formula: 1 - |d_unlearned - d_retain| / (|d_unlearned| + |d_retain|), d = after - before. Range:
    0 to 1. Better: 1. None where neither moves.
    """
    return _likeness(after - before, retain_after - retain_before)


def symmetric_quantisation(before: float, after: float) -> float | None:
    """Return how little 4-bit weights move a metric, either way.

    Formula: 1 - |after - before| / (|after| + |before|). Range: 0 to 1. Better: 1. None where both
    are 0.
    """
    return _likeness(before, after)


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """Return the harmonic mean of two values from 0 to 1; None if either is None."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _likeness(a: float, b: float) -> float | None:
    total = abs(a) + abs(b)
    return float(1 - abs(a - b) / total) if total > TINY else None
