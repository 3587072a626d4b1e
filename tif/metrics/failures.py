"""The failure signatures of unlearning (arXiv 2506.03142), told from a run's numbers.

The limits are ours: far from what a good run shows, so that a name stands for something.
"""

import dataclasses
from collections.abc import Mapping

Values = Mapping[str, float | None]

COLLAPSE = 0.25  # of the start's utility
FORGETTABLE = 0.05  # a start below that has no utility to lose
MOVED = 0.5  # nats a token on the retain set
LEAK = -20.0  # PrivLeak, percent
FLAT = 1.0  # powers of ten that forget quality should have risen by half of the training
TOLD_APART = 0.05  # forget quality from which a model passes for one that never saw the forget set
SHARE = (0.05, 0.95)  # of the forget answers' words that are unwanted
AGREEMENT = 0.5  # F1 of the unwanted words against gold


@dataclasses.dataclass(frozen=True)
class Failure:
    """One signature.

    Attributes:
        name: one of schema.FAILURES.
        value: the number that shows it.
        line: the same in words, with what would be fine.
    """

    name: str
    value: float
    line: str


def failures(start: Values, now: Values, progress: float) -> list[Failure]:
    """The signatures that an evaluation shows.

    collapse: model utility (MUSE: KnowMem on the retain set) below a quarter of the start's.
    over_forgetting: KL(original || policy) on the retain set above 0.5 nats a token; where it was not computed
        (eval.kl), the rise of the retain answers' loss, which estimates it.
    under_forgetting, from half of the training on: PrivLeak still below -20; or, without it, a forget quality below
        0.05 that rose by less than a factor of 10.

    Args:
        start: numbers of the model before training (or of the first evaluation).
        now: numbers of this evaluation.
        progress: share of the training that is done, 0 to 1.
    """
    found = [_collapse(start, now), _over(start, now), _under(start, now) if progress >= 0.5 else None]
    return [failure for failure in found if failure]


def identifier_failures(share: float, agreement: float | None) -> list[Failure]:
    """identifier: nearly all or nearly none of the forget answers' words are unwanted, or the wrong ones are.

    Args:
        share: of the words that are unwanted, 0 to 1.
        agreement: F1 against gold, 0 to 1; None = there is no gold.
    """
    if not SHARE[0] <= share <= SHARE[1]:
        wanted = f"{SHARE[0]:.0%} to {SHARE[1]:.0%}"
        return [Failure("identifier", share, f"{share:.0%} of the forget answers' words are unwanted, want {wanted}")]
    if agreement is not None and agreement < AGREEMENT:
        line = f"the unwanted words agree with gold by F1 {agreement:.2f}, want at least {AGREEMENT:g}"
        return [Failure("identifier", agreement, line)]
    return []


def _collapse(start: Values, now: Values) -> Failure | None:
    for key, what, unit in (
        ("utility/model", "model utility", 1.0),
        ("muse/knowmem_retain", "KnowMem on retain", 100.0),
    ):
        before, after = start.get(key), now.get(key)
        if before is not None and after is not None and before / unit > FORGETTABLE and after < COLLAPSE * before:
            line = f"{what} is {after:.3g}, was {before:.3g} before; want at least a quarter of that"
            return Failure("collapse", after, line)
    return None


def _over(start: Values, now: Values) -> Failure | None:
    moved, what = now.get("retain/kl"), "KL(original || policy) on the retain set is"
    if moved is None:
        before, after = start.get("retain/loss"), now.get("retain/loss")
        moved = after - before if before is not None and after is not None else None
        what = "the loss of the retain answers rose by"
    if moved is None or moved <= MOVED:
        return None
    return Failure("over_forgetting", moved, f"{what} {moved:.2f} nats a token, want at most {MOVED:g}")


def _under(start: Values, now: Values) -> Failure | None:
    leak = now.get("muse/privleak")
    if leak is not None:
        line = f"PrivLeak is {leak:.1f}, want above {LEAK:g}"
        return Failure("under_forgetting", leak, line) if leak < LEAK else None
    before, after = start.get("forget/quality"), now.get("forget/quality")
    if before is None or after is None or after >= TOLD_APART or after >= before * 10**FLAT:
        return None
    line = f"forget quality is {after:.1e}, was {before:.1e} before; want a rise by a factor of {10**FLAT:g}, or 0.05"
    return Failure("under_forgetting", after, line)
