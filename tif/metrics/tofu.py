"""TOFU's metrics, computed from records alone (Maini et al. 2024, arXiv 2401.06121).

Called by metrics/overall.py (a run's row of metrics) and metrics/results.py (with intervals).

A metric of a set is a function of its records that returns (N,), one value a question; the reported
number is the mean. It returns None where no record has what the metric needs, and raises ValueError
where the set is empty or only some records have it. `QUESTION_METRICS` lists these functions by
reported name. Their docstrings are the metric cards of `python -m tif.evaluate --metrics`.

Where the paper and its released code differ (issue locuslab/open-unlearning#26) we follow the code,
because published numbers come from it.

Metrics are computed from losses as long as possible: a collapsed model has losses in the thousands,
where exp(-loss) is 0, and 0 / 0 is NaN.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from tif.metrics import memorization
from tif.metrics.rouge import rouge_scores
from tif.metrics.values import Floats, mean_or_none, require_records
from tif.records.comparability import find_mismatch, find_missing_records
from tif.records.types import PARAPHRASED, Evaluation, Record, RecordSet

SETS_WITH_OPTIONS = ("real_authors", "world_facts")  # the wrong answers are the options
UTILITY_SETS = ("retain", "real_authors", "world_facts")  # what a model must stay good at
UTILITY_PARTS = ("probability", "rougeL", "truth_ratio")


def probability(records: RecordSet) -> Floats | None:
    """Return how likely the model finds the original answer, per token.

    Formula: p = exp(-loss); on real_authors and world_facts p / (p + sum of the wrong answers' p).
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget. Perfect
    unlearning: the retain model's value (not 0).
    Source: locuslab/tofu aggregate_eval_stat.py (the paper normalises probabilities of whole
    answers, not per token).
    """
    losses = np.array([record.loss for record in require_records(records)], dtype=np.float64)
    if _base_name(records) not in SETS_WITH_OPTIONS:
        return np.exp(-losses)
    if not _has_perturbed_answers(records):
        return None
    # p / (p + sum of wrong) = 1 / (1 + sum of wrong / p)
    log_odds = []
    for record in _with_perturbed_answers(records):
        log_odds.append(_log_sum_exp(record.loss - np.array(record.perturbed_losses)))
    return 1 / (1 + _exp(np.array(log_odds)))


def rouge1(records: RecordSet) -> Floats | None:
    """Return which share of the answer's words the greedy generation contains, in any order.

    Formula: ROUGE-1 recall with stemming. A recall: text after the answer costs nothing.
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget. Perfect
    unlearning: the retain model's value (not 0: questions repeat words of their answers).
    Source: locuslab/tofu evaluate_util.py.
    """
    return _rouge_recalls(records, "rouge1")


def rouge_l(records: RecordSet) -> Floats | None:
    """Return which share of the answer's words the greedy generation contains, in their order.

    Formula: ROUGE-L recall with stemming: longest common subsequence / the answer's words.
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget. Perfect
    unlearning: the retain model's value (not 0: questions repeat words of their answers).
    Source: locuslab/tofu evaluate_util.py.
    """
    return _rouge_recalls(records, "rougeL")


def truth_ratio(records: RecordSet) -> Floats | None:
    """Return how well the model tells right from wrong answers; on forget, how badly it does.

    Formula: TR = w / c. c = exp(-paraphrased loss), or exp(-loss) where there is no paraphrase.
    w = the geometric mean of the wrong answers' exp(-loss). forget: min(TR, 1 / TR); other sets:
    max(0, 1 - TR).
    Range: 0 to 1. Better: higher (forget: the model cannot tell right from wrong; other sets: it
    can). Perfect unlearning: the retain model's value (not 1).
    Source: locuslab/tofu aggregate_eval_stat.py.
    """
    if not _has_perturbed_answers(records):
        return None
    return _higher_is_better(records, log_truth_ratios(records))


def truth_ratio_arithmetic(records: RecordSet) -> Floats | None:
    """Return the truth ratio with the arithmetic mean of the wrong answers.

    Formula: as truth_ratio, with w = the arithmetic mean of the wrong answers' exp(-loss).
    Range: 0 to 1. Better: higher (forget: the model cannot tell right from wrong; other sets: it
    can). Perfect unlearning: the retain model's value (not 1).
    Source: the TOFU paper and locuslab/tofu utils.py; the released aggregation is `truth_ratio`.
    """
    if not _has_perturbed_answers(records):
        return None
    return _higher_is_better(records, log_truth_ratios(records, "arithmetic"))


def truth_ratio_probability(records: RecordSet) -> Floats | None:
    """Return the probability of the right answer against the wrong ones.

    Formula: c / (c + w) on every set, with c and w as in truth_ratio.
    Range: 0 to 1; 0.5 = the model cannot tell right from wrong. Better: higher on retain,
    real_authors and world_facts; lower on forget. Perfect unlearning: the retain model's value.
    Source: the OpenUnlearning paper; `prob_mean` in locuslab/open-unlearning memorization.py.
    """
    if not _has_perturbed_answers(records):
        return None
    return 1 / (1 + _exp(log_truth_ratios(records)))


QUESTION_METRICS: Mapping[str, Callable[[RecordSet], Floats | None]] = {
    "probability": probability,
    "rouge1": rouge1,
    "rougeL": rouge_l,
    "truth_ratio": truth_ratio,
    "truth_ratio_arithmetic": truth_ratio_arithmetic,
    "truth_ratio_probability": truth_ratio_probability,
}
AGGREGATED = ("probability", "rouge1", "rougeL", "truth_ratio", *memorization.QUESTION_METRICS)


def model_utility(means: Mapping[str, float | Floats | None]) -> Floats | None:
    """Return in one number what the model is still good for.

    Formula: harmonic mean of nine means: {probability, ROUGE-L recall, truth ratio} of {retain,
    real_authors, world_facts}.
    Range: 0 to 1; 0 if any of the nine is 0. Better: higher. Perfect unlearning: the retain
    model's value (about 0.5 for Phi-1.5, 0.6 for Llama-2-7B).
    Source: locuslab/tofu aggregate_eval_stat.py.

    Args:
        means: by `<set>/<metric>`: numbers, or (draws,) of bootstrap draws.

    Returns:
        () or (draws,), as the means; None where one of the nine is missing.
    """
    parts: list[float | Floats] = []
    for name in UTILITY_SETS:
        for metric in UTILITY_PARTS:
            mean = means.get(f"{name}/{metric}")
            if mean is None:
                return None
            parts.append(mean)
    return harmonic_mean(np.array(parts))


def forget_quality(
    evaluation: Evaluation, retain: Evaluation, *, allow_mismatch: bool = False
) -> float:
    """Return how well the model passes for one that never saw the forget set.

    Formula: p-value of the two-sided two-sample Kolmogorov-Smirnov test of the forget set's truth
    ratios (geometric) against those that the retain model gives to the same questions.
    Range: above 0 to 1, usually read on a log scale. Better: higher; above 0.05 the two cannot be
    told apart. Perfect unlearning: any large value, not 1: two equally good retain models differ
    by chance.
    Source: locuslab/tofu aggregate_eval_stat.py.

    Args:
        evaluation: of the unlearned model.
        retain: of the retain model.
        allow_mismatch: compute it also where the two should not be compared.

    Raises:
        ValueError: If one of them has no forget records, or they answer different questions, follow
            different protocols or come from different model families (each as far as known).
    """
    if missing := find_missing_records(evaluation, retain):
        raise ValueError(f"forget/quality: {missing}")
    ratios = log_truth_ratios(evaluation.sets["forget"])
    retain_ratios = log_truth_ratios(retain.sets["forget"])
    problem = None if allow_mismatch else find_mismatch(evaluation, retain)
    if problem:
        raise ValueError(f"forget/quality: {problem}; allow_mismatch=True computes it all the same")
    from scipy.stats import ks_2samp

    # The test sees only the order of the values, so logarithms do as well and stay finite.
    return float(ks_2samp(ratios, retain_ratios).pvalue)


def aggregate(evaluation: Evaluation, retain: Evaluation | None = None) -> dict[str, float | None]:
    """Return every metric by its stable name: `<set>/probability`, ..., `forget/quality`.

    A value is None where the records lack what the metric needs (nothing was generated, there are
    no wrong answers). `utility/model` needs all of its sets, `forget/quality` the retain model's
    evaluation; without them they are left out.

    Raises:
        ValueError: If a set is empty, only some of its records have a part, or `forget_quality`
            refuses.
    """
    means: dict[str, float | None] = {}
    for name, records in evaluation.sets.items():
        for metric, values in question_values(records).items():
            if metric in AGGREGATED:
                means[f"{name}/{metric}"] = mean_or_none(values)
    if all(name in evaluation.sets for name in UTILITY_SETS):
        means["utility/model"] = mean_or_none(model_utility(means))
    if retain is not None:
        means["forget/quality"] = forget_quality(evaluation, retain)
    return means


def question_values(records: RecordSet) -> dict[str, Floats | None]:
    """Return each metric of a set, question by question: (N,), or None where it was not recorded.

    Those of metrics/memorization.py are left out where the records have no token statistics.

    Raises:
        ValueError: If the set is empty, or only some of its records have a part.
    """
    values = {name: metric(records) for name, metric in QUESTION_METRICS.items()}
    return values | memorization.question_values(records)


def log_truth_ratios(
    records: RecordSet, mean: Literal["geometric", "arithmetic"] = "geometric"
) -> Floats:
    """Return log(w / c) of `truth_ratio`: (N,), finite whatever the losses.

    Raises:
        ValueError: If the set is empty, or a record has no wrong answers.
    """
    log_ratios = []
    for record in _with_perturbed_answers(records):
        log_wrong = -np.array(record.perturbed_losses, dtype=np.float64)
        right_loss = record.loss if record.paraphrased_loss is None else record.paraphrased_loss
        if mean == "geometric":
            log_mean = float(log_wrong.mean())
        else:
            log_mean = _log_sum_exp(log_wrong) - float(np.log(len(log_wrong)))
        log_ratios.append(log_mean + right_loss)
    return np.array(log_ratios, dtype=np.float64)


def harmonic_mean(parts: Floats) -> Floats:
    """Return the harmonic mean over the first axis; 0 wherever one of the parts is 0 or less.

    scipy.stats.hmean differs in the last digit from the numbers published so far.
    """
    positive = (parts > 0).all(0)
    return np.where(positive, len(parts) / (1 / np.where(positive, parts, 1)).sum(0), 0)


def _base_name(records: RecordSet) -> str:
    """Return the name of the set whose questions these are, perhaps in other words."""
    return records.name.removesuffix(PARAPHRASED)


def _has_perturbed_answers(records: RecordSet) -> bool:
    return any(record.perturbed_losses for record in require_records(records))


def _with_perturbed_answers(records: RecordSet) -> tuple[Record, ...]:
    missing = [record.id for record in require_records(records) if not record.perturbed_losses]
    if missing:
        raise ValueError(
            f"{records.name}: {len(missing)} of {len(records.records)} have no perturbed answers: "
            f"{missing[0]}, ..."
        )
    return records.records


def _rouge_recalls(records: RecordSet, kind: str) -> Floats | None:
    scores = rouge_scores(records, stemming=True)
    if scores is None:
        return None
    return np.array([score[kind].recall for score in scores], dtype=np.float64)


def _higher_is_better(records: RecordSet, log_ratios: Floats) -> Floats:
    """Return min(TR, 1 / TR) on forget and max(0, 1 - TR) elsewhere."""
    if _base_name(records) == "forget":
        return np.exp(-np.abs(log_ratios))
    return 1 - np.exp(np.minimum(log_ratios, 0))


def _exp(logarithms: Floats) -> Floats:
    return np.exp(np.minimum(logarithms, 700.0))  # e**700 is about 1e304, just inside a float64


def _log_sum_exp(logarithms: Floats) -> float:
    largest = logarithms.max()
    return float(largest + np.log(np.exp(logarithms - largest).sum()))
