"""The failure signatures of unlearning (arXiv 2506.03142), recognised in a run's numbers.

The limits are ours: far from what a good run shows, so that a named failure means something.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tif.records.types import Evaluation

Values = Mapping[str, float | None]
UNKNOWN = "nothing_to_forget"

MIN_UTILITY = 0.25  # share of the start's utility below which a model has collapsed
MIN_START = 0.05  # a start below has no utility to lose
MAX_MOVE = 0.5  # nats a token on the retain set
MIN_PRIVLEAK = -20.0  # percent
MIN_RISE = 10.0  # factor by which forget quality should have risen by half of the training
ALIKE = 0.05  # forget quality from which a model passes for one that never saw the forget set
UNWANTED_SHARE = (0.05, 0.95)  # of the forget answers' words
MIN_AGREEMENT = 0.5  # F1 of the unwanted words against gold
# Of these the first that was measured decides: a model below it does not know the forget set.
# `measure_knowledge` says what was seen. The share is of the unwanted passages.
KNOWLEDGE = {
    "known/retain_gain": (0.1, "the forget answers are {:.2f} nats a token likelier than for the "
                          "retain model, want 0.1"),
    "known/wrong_gain": (0.5, "right answers are {:.2f} nats a token likelier than wrong ones, "
                         "want 0.5"),
    "words/unwanted_extracted": (0.05, "the model writes {:.1%} of the unwanted words by itself, "
                                 "want 5%"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Failure:
    """One signature: its name in config.evaluation.FAILURES, the number, and a line in words."""

    name: str
    value: float
    line: str


def find_failures(start: Values, now: Values, progress: float) -> list[Failure]:
    """Return the signatures that an evaluation shows.

    collapse: model utility (MUSE: KnowMem on the retain set) below a quarter of the start's.
    over_forgetting: KL(original || policy) on the retain set above 0.5 nats a token; where it was
    not computed (eval.kl), the rise of the retain answers' loss, which estimates it.
    under_forgetting, from half of the training on: PrivLeak still below -20; or, without it, a
    forget quality below 0.05 that rose by less than a factor of 10.

    Args:
        start, now: numbers before training (or of the first evaluation), and of this evaluation.
        progress: share of the training that is done, 0 to 1.
    """
    signatures = [_find_collapse(start, now), _find_over_forgetting(start, now)]
    if progress >= 0.5:
        signatures.append(_find_under_forgetting(start, now))
    return [failure for failure in signatures if failure]


def measure_knowledge(start: Evaluation, retain: Evaluation | None) -> dict[str, float]:
    """Return how much better the model predicts the forget answers than one that never saw them.

    known/retain_gain, where there is a retain model: mean over the forget answers of its loss minus
    the model's. Nats a token. Seen: 2.1 to 2.5 for TOFU's finetuned Llama-3.2-1B against its retain
    models (the logs of locuslab/open-unlearning); 0 where both know as little.

    known/wrong_gain, where the benchmark has wrong answers: mean over the questions of the wrong
    answers' loss minus the right one's, in its other wording where there is one (TOFU's wrong
    answers are variations of that). Nats a token. Seen: 0.82 to 0.88 for models that were trained
    on TOFU (Phi-1.5, Llama-3.2-1B), 0.24 to 0.36 for retain models (also Llama-2-7B): a right
    answer is a little more likely than a wrong one also where nobody knows it.

    Texts without either are judged by `words/unwanted_extracted` of targeted.py.

    `start`: records of the model before training; `retain`: the retain model's.
    """
    if "forget" not in start.sets:
        return {}
    records, measures = start.sets["forget"].records, {}
    if retain is not None and "forget" in retain.sets:
        losses = {record.id: record.loss for record in retain.sets["forget"].records}
        gains = [losses[record.id] - record.loss for record in records if record.id in losses]
        if gains:
            measures["known/retain_gain"] = float(np.mean(gains))
    wrong_gains = []
    for record in records:
        if record.perturbed_losses:
            right = record.loss if record.paraphrased_loss is None else record.paraphrased_loss
            wrong_gains.append(float(np.mean(record.perturbed_losses)) - right)
    if wrong_gains:
        measures["known/wrong_gain"] = float(np.mean(wrong_gains))
    return measures


def find_nothing_to_forget(start: Values) -> list[Failure]:
    """Return the failure of a model that does not know the forget set before training.

    The first of these that was measured decides: the gain over the retain model (below 0.1 nats a
    token), the gain of right over wrong answers (below 0.5 nats a token), the share of unwanted
    passages that the model writes by itself (below 5 %).

    `start`: numbers before training, with those of `measure_knowledge` and metrics/targeted.py.
    """
    for name, (least, line) in KNOWLEDGE.items():
        value = start.get(name)
        if value is not None:
            line = f"{line.format(value)}: is this the model that was trained on them?"
            return [Failure(UNKNOWN, value, line)] if value < least else []
    return []


def find_identifier_failures(share: float, agreement: float | None) -> list[Failure]:
    """Return the failure of an identifier that marks nearly all, nearly none or the wrong words.

    `share`: of the forget answers' words that are unwanted; `agreement`: F1 against gold, if known.
    """
    low, high = UNWANTED_SHARE
    if not low <= share <= high:
        line = (
            f"{share:.0%} of the forget answers' words are unwanted, want {low:.0%} to {high:.0%}"
        )
        return [Failure("identifier", share, line)]
    if agreement is not None and agreement < MIN_AGREEMENT:
        wanted = f"want at least {MIN_AGREEMENT:g}"
        line = f"the unwanted words agree with gold by F1 {agreement:.2f}, {wanted}"
        return [Failure("identifier", agreement, line)]
    return []


def _find_collapse(start: Values, now: Values) -> Failure | None:
    metric, title, unit = "utility/model", "model utility", 1.0
    if start.get(metric) is None or now.get(metric) is None:
        metric, title, unit = "muse/knowmem_retain", "KnowMem on retain", 100.0
    before, after = start.get(metric), now.get(metric)
    if before is None or after is None:
        return None
    if before / unit <= MIN_START or after >= MIN_UTILITY * before:
        return None
    line = f"{title} is {after:.3g}, was {before:.3g} before; want at least a quarter of that"
    return Failure("collapse", after, line)


def _find_over_forgetting(start: Values, now: Values) -> Failure | None:
    move, title = now.get("retain/kl"), "KL(original || policy) on the retain set is"
    if move is None:
        before, after = start.get("retain/loss"), now.get("retain/loss")
        if before is None or after is None:
            return None
        move, title = after - before, "the loss of the retain answers rose by"
    if move <= MAX_MOVE:
        return None
    line = f"{title} {move:.2f} nats a token, want at most {MAX_MOVE:g}"
    return Failure("over_forgetting", move, line)


def _find_under_forgetting(start: Values, now: Values) -> Failure | None:
    leak = now.get("muse/privleak")
    if leak is not None:
        line = f"PrivLeak is {leak:.1f}, want above {MIN_PRIVLEAK:g}"
        return Failure("under_forgetting", leak, line) if leak < MIN_PRIVLEAK else None
    before, after = start.get("forget/quality"), now.get("forget/quality")
    if before is None or after is None or after >= ALIKE or after >= before * MIN_RISE:
        return None
    line = (
        f"forget quality is {after:.1e}, was {before:.1e} before; "
        f"want a rise by a factor of {MIN_RISE:g}, or {ALIKE}"
    )
    return Failure("under_forgetting", after, line)
