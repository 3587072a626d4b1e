"""MUSE's metrics, computed from records alone (Shi et al. 2024, arXiv 2407.06460), in percent.

Criteria 1 to 4 are the four numbers here; scalability and sustainability are the same numbers after
other forget sets (`data.split=scal_2`, `sust_2`, ...). The docstrings are the metric cards.
"""

import math

import numpy as np

from tif.metrics import membership, memorization
from tif.metrics.intervals import Interval, leave_one_out, measure_spread, t_interval
from tif.metrics.membership import COMPARED, FORGET
from tif.metrics.registry import find_metric, metrics_reading, register_metric
from tif.metrics.values import Floats, mean_or_none, rouge_scores
from tif.records.comparability import align_records, find_mismatch, find_missing_records
from tif.records.types import Evaluation, RecordSet


@register_metric(
    "muse/verbmem_forget", "VerbMem on forget texts", better="↓", short="VerbMem forget",
    unit="percent", decimals=1, columns={"muse": 43}, main=("muse",), against="muse/verbmem_retain",
)  # fmt: skip
@register_metric(
    "muse/verbmem_retain", "VerbMem on retain texts", better="↑", short="VerbMem retain",
    unit="percent", decimals=1, columns={"muse": 44},
)  # fmt: skip
def verbmem(records: RecordSet) -> Floats:
    """Return how well the model continues a text word for word.

    Formula: ROUGE-L F1 (percent, no stemming) of 128 greedy tokens after a passage, against the
    first 128 tokens of what truly follows. Range: 0 to 100. Better: lower on forget, higher on
    retain. Perfect unlearning: the retain model's value (in the paper about 21 on News and 14 on
    Books).
    Source: muse_bench verbmem. open-unlearning stems and does not cut the target: other numbers.
    """
    return _rouge_f1(records)


@register_metric(
    "muse/knowmem_forget", "KnowMem on forget questions", better="↓", short="KnowMem forget",
    unit="percent", decimals=1, columns={"muse": 41}, main=("muse",), against="muse/knowmem_retain",
)  # fmt: skip
@register_metric(
    "muse/knowmem_retain", "KnowMem on retain questions", better="↑", short="KnowMem retain",
    unit="percent", decimals=1, columns={"muse": 42}, main=("muse",),
)  # fmt: skip
def knowmem(records: RecordSet) -> Floats:
    """Return how well the model answers questions about a text.

    Formula: ROUGE-L F1 (percent, no stemming) of 32 greedy tokens, cut at an empty line or the next
    "Question:", against the answer; ten answered questions come before each. Range: 0 to 100.
    Better: lower on forget questions, higher on retain questions (MUSE's utility).
    Perfect unlearning: the retain model's value. Source: muse_bench knowmem; open-unlearning stems.
    """
    return _rouge_f1(records)


ROUGE_SETS = ("verbmem_forget", "verbmem_retain", "knowmem_forget", "knowmem_retain")
SETS = (*ROUGE_SETS, *COMPARED)
LIMITS = (-100.0, math.inf)  # of PrivLeak
TEXT_SETS = ("forget", "retain")  # of texts of one's own: every word is scored


def question_values(evaluation: Evaluation) -> dict[str, Floats]:
    """Return VerbMem and KnowMem question by question: set name -> (N,), percent."""
    values = {}
    for name in ROUGE_SETS:
        registered = find_metric(f"muse/{name}")
        if registered and name in evaluation.sets:
            values[name] = registered.function(evaluation.sets[name])
    return values


def text_values(records: RecordSet) -> dict[str, Floats | None]:
    """Return what is measured of whole texts, text by text: metric -> (N,).

    These need no retain model: `probability` (exp of the mean log-probability of a text's tokens)
    and the metrics of memorization.py. Better: lower on forget, higher on retain.
    """
    values: dict[str, Floats | None] = {}
    for key, registered in metrics_reading("answers").items():
        values[key] = registered.function(records)
    return values | memorization.question_values(records)


@register_metric(
    "membership/privleak", "PrivLeak", better="→ 0", unit="percent", decimals=1, needs_retain=True
)
@register_metric(
    "muse/privleak", "PrivLeak", better="→ 0", unit="percent", decimals=1, columns={"muse": 40},
    main=("muse",), against="muse/knowmem_retain", needs_retain=True,
    note="PrivLeak: 0 = shows no more than the retain model; -5 to 5 is fine",
)  # fmt: skip
def privleak(
    evaluation: Evaluation, retain: Evaluation, *, allow_mismatch: bool = False
) -> float | None:
    """Return whether one can tell that the forget texts were once in the training data.

    Formula: 100 * (A - A_retain) / A_retain. A = P(a holdout text looks better known than a forget
    text) by the Min-K score (see min_k), which is 1 minus the `membership/min_k` AUC; A_retain
    is the retain model's on the same texts. Range: -100 and up. Better: near 0; MUSE calls -5 to 5
    fine. Far below 0: still known (under-forgotten); far above: forgotten so hard that it shows
    (over-forgotten). Perfect unlearning: 0. Source: muse_bench privleak, whose own retain models
    have A_retain 0.4772 (News) and 0.5393 (Books), Llama-2-7B.

    Returns:
        None where A_retain is 0: there are very few texts, or the retain model saw them.

    Raises:
        ValueError: If texts or token log-probabilities are missing; unless `allow_mismatch`, also
            if the two have other texts, protocols or model families.
    """
    names = membership.compared_sets(evaluation) or COMPARED
    if missing := find_missing_records(evaluation, retain, names):
        raise ValueError(f"muse/privleak: {missing}")
    problem = None if allow_mismatch else find_mismatch(evaluation, retain, names)
    if problem:
        raise ValueError(f"muse/privleak: {problem}; allow_mismatch=True computes it all the same")
    return relative_leak(_holdout_auc(evaluation), _holdout_auc(retain))


def relative_leak(auc: float, retain_auc: float) -> float | None:
    """Return PrivLeak of two AUCs in MUSE's direction; None if the retain model's is 0."""
    return 100 * (auc - retain_auc) / retain_auc if retain_auc > 0 else None


def privleak_interval(evaluation: Evaluation, retain: Evaluation) -> Interval | None:
    """Return the interval of `privleak`: what is left out is left out of both models.

    None where the two have different texts, a kind has one group only, or there is no value.
    """
    names = membership.compared_sets(evaluation)
    if names is None:  # logs have the scores alone
        scores = [np.array(side) for side in evaluation.attack_scores.get("min_k", ())]
        retain_scores = [np.array(side) for side in retain.attack_scores.get("min_k", ())]
        if not scores or list(map(len, scores)) != list(map(len, retain_scores)):
            return None
    else:
        scores, retain_scores = [], []
        for name in names:
            matching = align_records(evaluation, retain, name)
            if matching is None:
                return None
            scores.append(membership.min_k_scores(evaluation.sets[name]))
            retain_scores.append(membership.min_k_scores(matching))
    pairs_NM, retain_NM = (membership.compare_pairs(*both) for both in (scores, retain_scores))
    leak = relative_leak(1 - float(pairs_NM.mean()), 1 - float(retain_NM.mean()))
    if leak is None:
        return None
    spreads = []
    kinds = zip(membership.split_pairs(pairs_NM), membership.split_pairs(retain_NM), strict=True)
    for (ours, theirs), groups in zip(kinds, membership.compared_groups(evaluation), strict=True):
        auc, retain_auc = (1 - leave_one_out(values, groups) for values in (ours, theirs))
        if not (retain_auc > 0).all():
            return None
        spreads.append(measure_spread(100 * (auc - retain_auc) / retain_auc, groups))
    return t_interval(leak, spreads, LIMITS)


def logged_privleak(evaluation: Evaluation, retain: Evaluation) -> float | None:
    """Return PrivLeak of two logs that have Min-K scores but no texts; None where one lacks them.

    None also where they have other numbers of texts.
    """
    ours, theirs = (logs.attack_scores.get("min_k") for logs in (evaluation, retain))
    if not ours or not theirs or list(map(len, ours)) != list(map(len, theirs)):
        return None
    return relative_leak(1 - membership.auc(*ours), 1 - membership.auc(*theirs))


def aggregate(evaluation: Evaluation, retain: Evaluation | None = None) -> dict[str, float | None]:
    """Return every metric by its stable name: `muse/verbmem_forget`, ..., `muse/privleak`.

    Sets that were not evaluated have no entry; `muse/privleak` needs the retain model's evaluation.
    """
    metrics: dict[str, float | None] = {}
    for name, values in question_values(evaluation).items():
        metrics[f"muse/{name}"] = mean_or_none(values)
    for name in TEXT_SETS:
        if name in evaluation.sets:
            for metric, text_scores in text_values(evaluation.sets[name]).items():
                metrics[f"{name}/{metric}"] = mean_or_none(text_scores)
    if "retain" in evaluation.sets:
        metrics["retain/perplexity"] = perplexity(evaluation.sets["retain"])
    if retain is not None and FORGET in evaluation.sets:
        metrics["muse/privleak"] = privleak(evaluation, retain)
    return metrics


@register_metric("retain/perplexity", "retain perplexity", better="↓", columns={"retain": 72})
def perplexity(records: RecordSet) -> float:
    """Return between how many equally likely tokens the model chooses at each token of the texts.

    Formula: exp(mean over the texts of their loss, in nats a token). Range: 1 to infinity. Better:
    lower on retain. Perfect unlearning: the retain model's value. Source: the usual perplexity; a
    text counts once, however long it is.
    """
    return float(np.exp(np.mean([record.loss for record in records.records])))


def _rouge_f1(records: RecordSet) -> Floats:
    scores = rouge_scores(records, stemming=False)
    return 100 * np.array([score["rougeL"].fmeasure for score in scores])


def _holdout_auc(evaluation: Evaluation) -> float:
    names = membership.compared_sets(evaluation) or COMPARED
    forget, holdout = (membership.min_k_scores(evaluation.sets[name]) for name in names)
    return 1 - membership.auc(forget, holdout)
