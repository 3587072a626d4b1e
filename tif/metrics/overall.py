"""One row of numbers for an evaluation, and one number that ranks epochs."""

import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

from tif.metrics import membership, muse, open_unlearning, tofu, unread
from tif.metrics.registry import find_metric, register_metric
from tif.metrics.targeted import summarize_forget_words
from tif.records.protocols import arithmetic_of
from tif.records.types import AnswersBySet, Evaluation

Values = Mapping[str, float | None]
SCORE = "eval/score"
DISTANCE = "forget/retain_distance"
CHOICE = "choice/"  # before the metric that chooses an epoch, on one half of the questions
COMPARED = ("extraction_strength", "probability", "truth_ratio", "rougeL")


def is_muse(evaluation: Evaluation) -> bool:
    """Return whether an evaluation has MUSE's sets (or texts asked in the same way)."""
    if any(name in evaluation.sets for name in muse.SETS):
        return True
    return evaluation.protocol.get("name") == "muse"  # texts too short for VerbMem


def aggregate(
    evaluation: Evaluation, retain: Evaluation | None = None, tokens: AnswersBySet | None = None,
    start: Values | None = None,
) -> dict[str, float | None]:
    """Return every metric of an evaluation by its stable name.

    Besides the benchmark's own: `membership/<attack>` where there are holdout texts, `retain/loss`
    in nats a token, those of unwanted words where these are known, and what combines them:
    `eval/score`, `forget/as_unread` with its parts, OpenUnlearning's summary.

    Args:
        evaluation, retain: of the model and of the retain model; None = there is none.
        tokens: of the answers, by set and record id, with their unwanted words; None = not known.
        start: metrics of the model before unlearning; None = not known.

    Raises:
        ValueError: See tofu.aggregate and muse.aggregate.
    """
    benchmark = muse if is_muse(evaluation) else tofu
    metrics = benchmark.aggregate(evaluation, retain) | _measure_alone(evaluation, tokens or {})
    retain_metrics: dict[str, float | None] = {}
    if retain is not None:
        retain_metrics |= benchmark.aggregate(retain) | _measure_alone(retain, tokens or {})
    if retain is not None and benchmark is tofu:
        distance = retain_distance(metrics, retain_metrics)
        if distance is not None:
            metrics[DISTANCE] = distance
    if benchmark is tofu:
        metrics |= combine(metrics, evaluation, retain, tokens or {}, retain_metrics, start or {})
    score = overall_score(metrics)
    if score is not None:
        metrics[SCORE] = score
    return metrics


def combine(
    values: Values, evaluation: Evaluation, retain: Evaluation | None, tokens: AnswersBySet,
    retain_values: Values, start: Values = types.MappingProxyType({}),
) -> dict[str, float]:
    """Return forget/as_unread with its parts and OpenUnlearning's summary, by stable name.

    `values`, `retain_values`, `start`: the other metrics of the model, of the retain model, and of
    the model before unlearning. Left out is what cannot be had.
    """
    combined = unread.summarize(evaluation, retain, tokens, values, retain_values)
    known = {**values, **combined, **_measure_other_answers(evaluation)}
    return combined | open_unlearning.summarize(known, start, retain_values)


def is_combined(name: str) -> bool:
    """Return whether a metric is one of `combine` (or utility/eight), which follow from others."""
    parts = (unread.AS_UNREAD, unread.RATIO, unread.OTHER_RATIO, unread.FACTS, unread.READABLE)
    return name in (*parts, "utility/eight") or name.startswith("summary/")


def _measure_alone(evaluation: Evaluation, tokens: AnswersBySet) -> dict[str, float | None]:
    """Return the metrics beside the benchmark's own that compare with no other model."""
    metrics: dict[str, float | None] = {}
    for attack, scores in membership.attack_scores(evaluation).items():
        metrics[f"membership/{attack}"] = membership.auc(*scores)
    if "retain" in evaluation.sets:
        losses = [record.loss for record in evaluation.sets["retain"].records]
        metrics["retain/loss"] = sum(losses) / len(losses)
    return metrics | summarize_forget_words(evaluation.sets, tokens)


def _measure_other_answers(evaluation: Evaluation) -> dict[str, float | None]:
    """Return what OpenUnlearning's summary reads of the forget set's other answers."""
    records = evaluation.sets.get("forget")
    if records is None or any(not record.perturbed_losses for record in records.records):
        return {}
    ratios = tofu.truth_ratio_probability(records, arithmetic_of(evaluation.protocol))
    losses = [record.paraphrased_loss for record in records.records]
    paraphrased = [math.exp(-loss) for loss in losses if loss is not None]
    is_complete = len(paraphrased) == len(losses)
    return {
        "forget/truth_ratio_probability": float(ratios.mean()),
        open_unlearning.PARAPHRASED: sum(paraphrased) / len(losses) if is_complete else None,
    }


@register_metric(SCORE, "score", better="↑", columns={})
def overall_score(values: Values) -> float | None:
    """Return how good an unlearned model is as a whole: what `eval.best` ranks epochs by.

    Formula: harmonic mean of usefulness and forgetting. TOFU: model utility, and 1 / (1 + max(0,
    log10(0.05 / p))) with p the forget quality. That keeps the order of p-values that are far too
    small to tell apart on their own scale (0.05 and above: 1; 0.005: 1/2; 5e-11: 1/10), and takes
    p-values above 0.05 as equal: the test cannot tell such a model from one that never saw the
    forget set. MUSE: KnowMem on the retain set (as a share), and 1 - |PrivLeak| / 100, at least 0.
    Range: 0 to 1. Better: higher.
    Perfect unlearning: 2u / (1 + u) with u the retain model's utility.
    Source: ours; it ranks the epochs of one run and is no published metric. Its weakness: forget
    quality reads the truth ratio alone, which relearning and few bits move more than any other
    metric (arXiv 2506.12618), and above 0.05 it says nothing; `tif audit` asks whether
    the facts can be had back.

    Returns:
        None where the values lack one of the two.
    """
    utility, quality = values.get("utility/model"), values.get("forget/quality")
    if utility is not None and quality is not None:
        excess = max(0.0, math.log10(0.05) - math.log10(max(quality, 1e-300)))
        return _harmonic_mean(utility, 1 / (1 + excess))
    knowledge, leak = values.get("muse/knowmem_retain"), values.get("muse/privleak")
    if knowledge is not None and leak is not None:
        return _harmonic_mean(knowledge / 100, max(0.0, 1 - abs(leak) / 100))
    return None


@register_metric(DISTANCE, "distance to the retain model", better="↓", short="distance", columns={},
    needs_retain=True)  # fmt: skip
def retain_distance(values: Values, retain: Values) -> float | None:
    """Return how far the model's answers to the forget set are from the retain model's.

    Formula: mean over extraction strength, probability, truth ratio and ROUGE-L of the forget set
    of |the model's mean - the retain model's|. Range: 0 to 1. Better: lower. Perfect unlearning: 0,
    or what two retain models differ by. It counts a method that forgets too much as it counts one
    that forgets too little, and says nothing of the retain set: read it beside utility/model.
    Source: ours; which of its parts attacks and relearning move least is measured by Dorna et al.
    (arXiv 2506.12618).

    Returns:
        None where the records of either lack one of the four (logs without token statistics).
    """
    differences = []
    for metric in COMPARED:
        ours, theirs = values.get(f"forget/{metric}"), retain.get(f"forget/{metric}")
        if ours is None or theirs is None:
            return None
        differences.append(abs(ours - theirs))
    return sum(differences) / len(differences)


def get_best_metric(best: str) -> str:
    """Return the name of the metric that the key `eval.best` asks for."""
    return {"score": SCORE, "retain_distance": DISTANCE}.get(best, best)


def is_lower_better(name: str) -> bool:
    """Return whether a metric should fall, as its registration says."""
    registered = find_metric(name)
    return registered is not None and registered.arrow(name) == "↓"


@register_metric("utility/kept", "utility kept", better="↑", columns={"utility": 35})
def utility_kept(values: Values, start: Values) -> float | None:
    """Return which share of its usefulness the model still has.

    Formula: model utility / model utility before training. Range: 0 and up. Better: higher.
    Perfect unlearning: the retain model's utility / that before training, about 1. Source: ours.
    """
    utility, before = values.get("utility/model"), start.get("utility/model")
    return None if utility is None or not before else utility / before


def find_best_epoch(rows: Sequence[Mapping[str, Any]], metric: str) -> int | None:
    """Return the first epoch after 0 with the best `choice/<metric>`; None where none has it.

    The best is the highest, of a metric that should fall the lowest. Its numbers are reported on
    the other half of the questions.
    """
    name = CHOICE + metric
    known = [row for row in rows if row["epoch"] > 0 and row.get(name) is not None]
    sign = -1 if is_lower_better(metric) else 1
    return int(max(known, key=lambda row: sign * row[name])["epoch"]) if known else None


def _harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0
