"""TOFU's metrics, computed from records alone (Maini et al. 2024, arXiv 2401.06121).

A metric of a set maps its records to (N,), one value a question; the reported number is the mean.
Its docstring is the metric card of `tif evaluate --metrics`. Where the paper and its released code
differ (locuslab/open-unlearning#26) we follow the code, because published numbers come from it.
`rules` is the protocol of the records: open-unlearning adds 1e-10 to denominators, and a collapsed
model's truth ratios go to 0. Without that, values come from logarithms: exp(-loss) of such a model
is 0, and 0 / 0 NaN. All metrics raise ValueError where the set is empty or a record lacks what they
need.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tif.metrics import memorization
from tif.metrics.registry import find_metric, metrics_reading, register_metric
from tif.metrics.values import Floats, mean_or_none, require_records, rouge_scores
from tif.records.comparability import find_mismatch, find_missing_records
from tif.records.protocols import LEGACY_TOFU, Protocol, arithmetic_of
from tif.records.types import PARAPHRASED, Evaluation, Record, RecordSet

SETS_WITH_OPTIONS = ("real_authors", "world_facts")  # the wrong answers are the options
UTILITY_SETS = ("retain", "real_authors", "world_facts")  # what a model must stay good at
UTILITY_PARTS = ("probability", "rougeL", "truth_ratio")
UTILITY_NAMES = tuple(map("/".join, itertools.product(UTILITY_SETS, UTILITY_PARTS)))
UNSTEADY = "real_authors/rougeL"  # of the nine: see `utility_of_eight`


@register_metric(
    "<set>/probability", "probability", better="↑", on_forget="↓", short="prob.", reads="answers",
    columns={"forget": 60, "retain": 70}, main=("forget", "retain"), against="retain/probability",
)  # fmt: skip
def probability(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return how likely the model finds the original answer, per token.

    Formula: p = exp(-loss); on real_authors and world_facts p / (p + sum of the wrong answers' p)
    (protocol open-unlearning: 1e-10 is added to that sum).
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget.
    Perfect unlearning: the retain model's value (not 0). Source: locuslab/tofu
    aggregate_eval_stat.py (the paper normalises probabilities of whole answers, not per token).
    """
    losses = np.array([record.loss for record in require_records(records)], dtype=np.float64)
    if _base_name(records) not in SETS_WITH_OPTIONS:
        return np.exp(-losses)
    shares = []
    for record in _with_wrong_answers(records):
        wrong = np.array(record.perturbed_losses)
        if rules.epsilon:
            right = np.exp(-record.loss)
            shares.append(right / (right + np.exp(-wrong).sum() + rules.epsilon))
        else:  # p / (p + sum of wrong) = 1 / (1 + sum of wrong / p)
            shares.append(1 / (1 + _exp(_log_sum_exp(record.loss - wrong))))
    return np.array(shares, dtype=np.float64)


@register_metric(
    "<set>/rouge1", "ROUGE-1 recall", better="↑", on_forget="↓", short="ROUGE-1",
    reads="generations", columns={},
)  # fmt: skip
def rouge1(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return which share of the answer's words the greedy generation contains, in any order.

    Formula: ROUGE-1 recall with stemming. A recall: text after the answer costs nothing.
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget.
    Perfect unlearning: the retain model's value (not 0: questions repeat words of their answers).
    Source: locuslab/tofu evaluate_util.py.
    """
    return np.array([score["rouge1"].recall for score in rouge_scores(records, stemming=True)])


@register_metric(
    "<set>/rougeL", "ROUGE-L recall", better="↑", on_forget="↓", short="ROUGE-L",
    reads="generations", columns={"forget": 61, "retain": 71},
)  # fmt: skip
def rouge_l(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return which share of the answer's words the greedy generation contains, in their order.

    Formula: ROUGE-L recall with stemming: longest common subsequence / the answer's words.
    Range: 0 to 1. Better: higher on retain, real_authors and world_facts; lower on forget.
    Perfect unlearning: the retain model's value (not 0: questions repeat words of their answers).
    Source: locuslab/tofu evaluate_util.py.
    """
    return np.array([score["rougeL"].recall for score in rouge_scores(records, stemming=True)])


@register_metric(
    "<set>/truth_ratio", "truth ratio, geometric", better="↑", short="truth ratio",
    reads="wrong answers", columns={"forget": 62},
)  # fmt: skip
def truth_ratio(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return how well the model tells right from wrong answers; on forget, how badly it does.

    Formula: TR = w / c. c = exp(-paraphrased loss), or exp(-loss) where there is no paraphrase;
    w = the geometric mean of the wrong answers' exp(-loss). forget: min(TR, 1 / TR); other sets:
    max(0, 1 - TR). Protocol open-unlearning: TR = w / (c + 1e-10), min(TR, 1 / (TR + 1e-10)), so
    that TR is 0 where both answers are impossible. Range: 0 to 1. Better: higher (forget: the model
    cannot tell right from wrong; other sets: it can). Perfect unlearning: the retain model's value
    (not 1). Source: locuslab/tofu aggregate_eval_stat.py; locuslab/open-unlearning memorization.py.
    """
    return _higher_is_better(records, truth_ratios(records, rules), rules)


@register_metric(
    "<set>/truth_ratio_arithmetic", "truth ratio, arithmetic", better="↑", reads="wrong answers",
    columns={}, in_runs=False,
)  # fmt: skip
def truth_ratio_arithmetic(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return the truth ratio with the arithmetic mean of the wrong answers.

    Formula: as truth_ratio, with w = the arithmetic mean of the wrong answers' exp(-loss).
    Range: 0 to 1. Better: higher. Perfect unlearning: the retain model's value (not 1).
    Source: the TOFU paper and locuslab/tofu utils.py; its aggregation is `truth_ratio`.
    """
    return _higher_is_better(records, truth_ratios(records, rules, arithmetic=True), rules)


@register_metric(
    "<set>/truth_ratio_probability", "truth ratio, probability", better="↑", on_forget="↓",
    reads="wrong answers", columns={}, in_runs=False,
)  # fmt: skip
def truth_ratio_probability(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return the probability of the right answer against the wrong ones.

    Formula: c / (c + w) on every set, with c and w as in truth_ratio (protocol open-unlearning:
    1e-10 is added to the denominator). Range: 0 to 1; 0.5 = the
    model cannot tell right from wrong. Better: higher on retain, real_authors and world_facts;
    lower on forget. Perfect unlearning: the retain model's value.
    Source: the OpenUnlearning paper; `prob_mean` in locuslab/open-unlearning memorization.py.
    """
    right, wrong = _right_and_wrong_losses(records, arithmetic=False)
    if rules.epsilon:
        return np.exp(-right) / (np.exp(-right) + np.exp(-wrong) + rules.epsilon)
    return 1 / (1 + _exp(right - wrong))


def question_values(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> dict[str, Floats | None]:
    """Return each metric of a set: (N,), or None where no record has what it needs.

    Those of metrics/memorization.py are left out where the records have no token statistics.
    """
    absent = set()
    if all(record.generated is None for record in require_records(records)):
        absent.add("generations")
    has_wrong_answers = any(record.perturbed_losses for record in records.records)
    if not has_wrong_answers:
        absent.add("wrong answers")
    values: dict[str, Floats | None] = {}
    for key, registered in metrics_reading("answers", "generations", "wrong answers").items():
        is_absent = registered.reads in absent
        if key == "probability" and _base_name(records) in SETS_WITH_OPTIONS:
            is_absent = not has_wrong_answers
        values[key] = None if is_absent else registered.function(records, rules)
    return values | memorization.question_values(records, rules)


@register_metric(
    "utility/model", "model utility", better="↑", columns={"utility": 12}, main=("utility",),
    note="model utility: over retain set, real authors, world facts",
)  # fmt: skip
def model_utility(means: Mapping[str, float | Floats | None]) -> Floats | None:
    """Return in one number what the model is still good for.

    Formula: harmonic mean of nine means: {probability, ROUGE-L recall, truth ratio} of {retain,
    real_authors, world_facts}. Range: 0 to 1; 0 if any of the nine is 0. Better: higher.
    Perfect unlearning: the retain model's value (about 0.5 for Phi-1.5, 0.6 for Llama-2-7B).
    Source: locuslab/tofu aggregate_eval_stat.py.

    Args:
        means: by `<set>/<metric>`: numbers, or (draws,) of bootstrap draws.

    Returns:
        () or (draws,), as the means; None where one of the nine is missing.
    """
    return _combine_utility(means, UTILITY_NAMES)


@register_metric("utility/eight", "utility of eight", better="↑", columns={"utility": 13})
def utility_of_eight(means: Mapping[str, float | Floats | None]) -> Floats | None:
    """Return model utility without the number that small models hardly have.

    Formula: harmonic mean of the nine of utility/model but the ROUGE-L recall of real_authors: a
    small model answers few of those 100 questions, and the harmonic mean follows the few. Range: 0
    to 1; 0 if any of the eight is 0. Better: higher. Perfect unlearning: the retain model's value.
    Source: ours, of locuslab/tofu's nine.
    """
    return _combine_utility(means, [name for name in UTILITY_NAMES if name != UNSTEADY])


def _combine_utility(
    means: Mapping[str, float | Floats | None], names: Sequence[str]
) -> Floats | None:
    """Return the harmonic mean of the named means, 0 if any is 0; None where one is missing."""
    parts: list[float | Floats] = []
    for name in names:
        mean = means.get(name)
        if mean is None:
            return None
        parts.append(mean)
    # scipy.stats.hmean differs in the last digit from the numbers published so far.
    values = np.array(parts)
    positive = (values > 0).all(0)
    return np.where(positive, len(values) / (1 / np.where(positive, values, 1)).sum(0), 0)


@register_metric(
    "forget/quality", "forget quality", better="↑", columns={"forget": 10},
    main=("forget",), against="utility/model", needs_retain=True,
    note="forget quality: p-value against the retain model; 0.05 or more = alike",
)  # fmt: skip
def forget_quality(
    evaluation: Evaluation, retain: Evaluation, *, allow_mismatch: bool = False
) -> float:
    """Return how well the model passes for one that never saw the forget set.

    Formula: p-value of the two-sided two-sample Kolmogorov-Smirnov test of the forget set's truth
    ratios (geometric) against those that the retain model gives to the same questions.
    Range: above 0 to 1, usually read on a log scale. Better: higher; above 0.05 the two cannot be
    told apart. Perfect unlearning: any large value, not 1: two equally good retain models differ
    by chance. Source: locuslab/tofu aggregate_eval_stat.py.

    Raises:
        ValueError: If one of them has no forget records; unless `allow_mismatch`, also if they have
            other questions, protocols or model families (each as far as known).
    """
    if missing := find_missing_records(evaluation, retain):
        raise ValueError(f"forget/quality: {missing}")
    ratios = forget_ratios(evaluation)
    retain_ratios = forget_ratios(retain)
    problem = None if allow_mismatch else find_mismatch(evaluation, retain)
    if problem:
        raise ValueError(f"forget/quality: {problem}; allow_mismatch=True computes it all the same")
    from scipy.stats import ks_2samp

    with warnings.catch_warnings(action="ignore"):  # of ties, it says that it approximates
        return float(ks_2samp(ratios, retain_ratios).pvalue)


def aggregate(evaluation: Evaluation, retain: Evaluation | None = None) -> dict[str, float | None]:
    """Return every metric by its stable name: `<set>/probability`, ..., `forget/quality`.

    A value is None where the records lack what it needs. `utility/model` needs all of its sets and
    `forget/quality` the retain model's evaluation; without them they are left out.
    """
    means: dict[str, float | None] = {}
    rules = arithmetic_of(evaluation.protocol)
    for name, records in evaluation.sets.items():
        for key, values in question_values(records, rules).items():
            registered = find_metric(f"{name}/{key}")
            if registered is None or registered.in_runs:
                means[f"{name}/{key}"] = mean_or_none(values)
    if all(name in evaluation.sets for name in UTILITY_SETS):
        means["utility/model"] = mean_or_none(model_utility(means))
        means["utility/eight"] = mean_or_none(utility_of_eight(means))
    if retain is not None:
        means["forget/quality"] = forget_quality(evaluation, retain)
    return means


def forget_ratios(evaluation: Evaluation) -> Floats:
    """Return the forget set's truth ratios, which forget quality compares: (N,)."""
    return truth_ratios(evaluation.sets["forget"], arithmetic_of(evaluation.protocol))


def truth_ratios(
    records: RecordSet, rules: Protocol = LEGACY_TOFU, arithmetic: bool = False
) -> Floats:
    """Return w / c of `truth_ratio`: (N,), finite whatever the losses."""
    right, wrong = _right_and_wrong_losses(records, arithmetic)
    if rules.epsilon:
        return np.exp(-wrong) / (np.exp(-right) + rules.epsilon)
    return _exp(right - wrong)


def _right_and_wrong_losses(records: RecordSet, arithmetic: bool) -> tuple[Floats, Floats]:
    """Return -log c and -log w of `truth_ratio`: (N,) each."""
    right, wrong = [], []
    for record in _with_wrong_answers(records):
        losses = np.array(record.perturbed_losses, dtype=np.float64)
        mean = float(np.log(len(losses))) - _log_sum_exp(-losses) if arithmetic else losses.mean()
        wrong.append(mean)
        right.append(record.loss if record.paraphrased_loss is None else record.paraphrased_loss)
    return np.array(right, dtype=np.float64), np.array(wrong, dtype=np.float64)


def _base_name(records: RecordSet) -> str:
    return records.name.removesuffix(PARAPHRASED)


def _with_wrong_answers(records: RecordSet) -> tuple[Record, ...]:
    missing = [record.id for record in require_records(records) if not record.perturbed_losses]
    if missing:
        count = f"{len(missing)} of {len(records.records)}"
        raise ValueError(f"{records.name}: {count} have no perturbed answers: {missing[0]}, ...")
    return records.records


def _higher_is_better(records: RecordSet, ratios: Floats, rules: Protocol) -> Floats:
    if _base_name(records) == "forget":
        return np.minimum(ratios, 1 / (ratios + rules.epsilon))
    return np.maximum(0, 1 - ratios)


def _exp(logarithms: Any) -> Any:
    return np.exp(np.clip(logarithms, -700.0, 700.0))  # e**700 is about 1e304, inside a float64


def _log_sum_exp(logarithms: Floats) -> float:
    largest = logarithms.max()
    return float(largest + np.log(np.exp(logarithms - largest).sum()))
