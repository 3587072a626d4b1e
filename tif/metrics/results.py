"""All numbers of recorded evaluations with intervals: what `tif evaluate --json` prints."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tif.config.errors import ConfigError
from tif.metrics import fluency, intervals, membership, memorization, muse, overall, tofu
from tif.metrics.intervals import Interval
from tif.metrics.readable import readable
from tif.metrics.registry import read_limits
from tif.metrics.unread import READABLE
from tif.metrics.values import Floats, mean_or_none
from tif.records import comparability
from tif.records.protocols import arithmetic_of
from tif.records.types import AnswersBySet, Evaluation, RecordSet

UTILITY, EIGHT, QUALITY = "utility/model", "utility/eight", "forget/quality"
Means = dict[str, float | None]
Intervals = dict[str, Interval | None]
FIRST_SETS = ("forget", "retain", "real_authors", "world_facts")  # of TOFU, in the order shown


@dataclasses.dataclass(frozen=True)
class NumbersRequest:
    """An evaluation whose numbers are wanted.

    Attributes:
        evaluation: of TOFU's sets or of MUSE's (or of texts asked in the same way).
        retain: the retain model's; None = unknown.
        source, retain_source: what an error about either starts with: a key and a path.
        draws, seed: of forget quality's interval: number of draws, and their owner.
        allow_mismatch: compare with the retain model also where the two should not be compared.
        reference: another model's evaluation, for the membership attack that compares with one.
        gradient_norms: set -> (N,), for the membership attack of that name.
        clean: set -> (N,), a classifier's probabilities that the generations are no gibberish.
        tokens: of the answers, by set and record id, with their unwanted words where known.
    """

    evaluation: Evaluation
    retain: Evaluation | None
    source: str
    retain_source: str
    draws: int = 2000
    seed: int = 0
    allow_mismatch: bool = False
    reference: Evaluation | None = None
    gradient_norms: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    clean: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    tokens: AnswersBySet = dataclasses.field(default_factory=dict)


def compute_results(request: NumbersRequest) -> dict[str, Any]:
    """Return every metric of an evaluation with its interval: the content of `--json`.

    Raises:
        ConfigError: One line a problem.
    """
    evaluation, retain = request.evaluation, request.retain
    mismatch = _check_comparable(request)
    metrics, around = _measure(request)
    results: dict[str, Any] = {"metrics": metrics, "intervals": around}
    if not overall.is_muse(evaluation):
        results = _list_by_task(metrics, evaluation)
        results["intervals"] = _list_by_task(around, evaluation)
    retain_metrics: Means = {}
    if retain:
        with _errors_starting_with(request.retain_source):
            for label, values in _list_values(retain, {}).items():
                retain_metrics[label] = mean_or_none(values)
            retain_metrics |= overall.aggregate(retain, tokens=request.tokens)
    return results | {
        "retain_metrics": retain_metrics or None,
        "mismatch": mismatch,
        "questions": {name: len(records.records) for name, records in evaluation.sets.items()},
        "model": evaluation.model,
        "protocol": dict(evaluation.protocol),
        "retain_model": retain.model if retain else None,
        "retain_protocol": dict(retain.protocol) if retain else None,
        "logged": dict(evaluation.logged),
        "groups": count_groups(evaluation),
        "bootstrap": {"level": intervals.LEVEL, "draws": request.draws, "seed": request.seed},
    }


def count_groups(evaluation: Evaluation) -> dict[str, dict[str, int]]:
    """Return by set how many of each unit its intervals are over: {"forget": {"author": 20}}."""
    counts = {}
    for name, records in evaluation.sets.items():
        units = Counter(group.partition("/")[0] for group in set(records.groups))
        counts[name] = dict(sorted(units.items()))
    return counts


def named_intervals(
    evaluation: Evaluation, retain: Evaluation | None, tokens: AnswersBySet
) -> Intervals:
    """Return every metric's interval by its stable name, as in a run's metrics.jsonl.

    `tokens`: of the answers, by set and record id.

    Raises:
        ConfigError: As `compute_results`.
    """
    sources = evaluation.model, "the retain model"
    request = NumbersRequest(evaluation, retain, *sources, tokens=tokens)
    _check_comparable(request)
    return _measure(request)[1]


def _check_comparable(request: NumbersRequest) -> str | None:
    """Return in what the two should not be compared, or None; raise ConfigError unless allowed."""
    if request.retain is None:
        return None
    sets: tuple[str, ...] = ("forget",)
    if overall.is_muse(request.evaluation):
        sets = muse.COMPARED
    elif membership.compared_sets(request.evaluation) and membership.compared_sets(request.retain):
        sets = membership.COMPARED_QUESTIONS
    missing = comparability.find_missing_records(request.evaluation, request.retain, sets)
    if missing:
        raise ConfigError(f"{request.retain_source}: {missing}")
    mismatch = comparability.find_mismatch(request.evaluation, request.retain, sets)
    if mismatch and not request.allow_mismatch:
        advice = "allow_mismatch=true computes it all the same"
        raise ConfigError(f"{request.retain_source}: {mismatch}; {advice}")
    return mismatch


def _measure(request: NumbersRequest) -> tuple[Means, Intervals]:
    """Return every metric and its interval by stable name."""
    evaluation, sets = request.evaluation, request.evaluation.sets
    with _errors_starting_with(request.source):
        rouge = muse.question_values(evaluation)
        values = _list_values(evaluation, request.clean)
    metrics: Means = {}
    around: Intervals = {}
    for name, numbers in rouge.items():
        label = f"muse/{name}"
        metrics[label], around[label] = _average(label, numbers, sets[name])
    _add_membership(request, metrics, around)
    for label, by_question in values.items():
        records = sets[label.partition("/")[0]]
        metrics[label], around[label] = _average(label, by_question, records)
    if not overall.is_muse(evaluation):
        groups = {name: records.groups for name, records in sets.items()}
        metrics[UTILITY] = mean_or_none(tofu.model_utility(metrics))
        around[UTILITY] = intervals.utility_interval(values, groups)
        metrics[QUALITY], around[QUALITY] = _compare_forget_sets(request)
        for label, value in _combine(request, metrics).items():
            metrics[label], around[label] = value, None
        by_question = readable(evaluation)
        if by_question is not None:
            _, around[READABLE] = _average(READABLE, by_question, sets["forget"])
    return metrics, around


def _combine(request: NumbersRequest, metrics: Means) -> Means:
    """Return what follows from the other metrics: utility/eight, forget/as_unread, the summary."""
    retain_metrics: Means = {}
    if request.retain:
        with _errors_starting_with(request.retain_source):
            retain_metrics |= overall.aggregate(request.retain, tokens=request.tokens)
    combined: Means = {EIGHT: mean_or_none(tofu.utility_of_eight(metrics))}
    values = metrics | combined
    others = (request.evaluation, request.retain, request.tokens, retain_metrics)
    return combined | overall.combine(values, *others)


def _average(
    label: str, values: Floats | None, records: RecordSet
) -> tuple[float | None, Interval | None]:
    if values is None:
        return None, None
    interval = intervals.mean_interval(values, records.groups, read_limits(label))
    return mean_or_none(values), interval


def _list_values(
    evaluation: Evaluation, clean: Mapping[str, list[float]]
) -> dict[str, Floats | None]:
    """Return every metric of the sets' records by stable name, question by question."""
    values: dict[str, Floats | None] = {}
    for name in sorted(evaluation.sets, key=_place_of_set):
        records = evaluation.sets[name]
        texts = [record.generated for record in records.records if record.generated is not None]
        by_metric: dict[str, Floats | None] = {}
        if texts and len(texts) == len(records.records):
            by_metric |= fluency.question_values(texts, clean.get(name))
        if not overall.is_muse(evaluation):
            by_metric |= tofu.question_values(records, arithmetic_of(evaluation.protocol))
        else:
            by_metric |= memorization.question_values(records)
            by_metric |= muse.text_values(records) if name in muse.TEXT_SETS else {}
        values |= {f"{name}/{metric}": numbers for metric, numbers in by_metric.items()}
    return values


def _place_of_set(name: str) -> int:
    return FIRST_SETS.index(name) if name in FIRST_SETS else len(FIRST_SETS)


def _list_by_task(named: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Return named values in the form of TOFU's results."""
    listed: dict[str, Any] = {"model_utility": named[UTILITY], "forget_quality": named[QUALITY]}
    listed["tasks"] = {name: {} for name in sorted(evaluation.sets, key=_place_of_set)}
    for name, value in named.items():
        group, _, metric = name.partition("/")
        if group == "membership":
            listed.setdefault(group, {})[metric] = value
        elif overall.is_combined(name):
            listed.setdefault("combined", {})[name] = value
        elif name not in (UTILITY, QUALITY):
            listed["tasks"][group][metric] = value
    return listed


def _add_membership(request: NumbersRequest, metrics: Means, around: Intervals) -> None:
    """Add the AUC of each membership attack, and PrivLeak; nothing without holdout texts."""
    evaluation, retain = request.evaluation, request.retain
    is_muse = overall.is_muse(evaluation)
    groups = membership.compared_groups(evaluation)
    with _errors_starting_with(request.source):
        attacks = membership.attack_scores(evaluation, request.reference, request.gradient_norms)
    name = "muse/privleak" if is_muse else "membership/privleak"
    if is_muse and (retain or muse.FORGET in evaluation.sets):
        metrics[name] = around[name] = None
    for attack, scores in attacks.items():
        metrics[f"membership/{attack}"] = membership.auc(*scores)
        around[f"membership/{attack}"] = membership.auc_interval(*scores, groups)
    if attacks and retain and membership.compared_sets(retain):
        with _errors_starting_with(request.retain_source):
            metrics[name] = muse.privleak(evaluation, retain, allow_mismatch=True)
            around[name] = muse.privleak_interval(evaluation, retain)
    elif evaluation.attack_scores and retain:
        leak = muse.logged_privleak(evaluation, retain)
        if leak is not None:
            metrics[name], around[name] = leak, muse.privleak_interval(evaluation, retain)


def _compare_forget_sets(request: NumbersRequest) -> tuple[float | None, Interval | None]:
    """Return forget quality, and its interval where the questions are the same."""
    evaluation, retain = request.evaluation, request.retain
    if retain is None:
        return None, None
    with _errors_starting_with(request.retain_source):
        tofu.forget_ratios(retain)
    with _errors_starting_with(request.source):
        quality = tofu.forget_quality(evaluation, retain, allow_mismatch=True)
    matching = comparability.align_records(evaluation, retain, "forget")
    if matching is None:
        return quality, None
    ratios = tofu.forget_ratios(evaluation)
    retain_ratios = tofu.truth_ratios(matching, arithmetic_of(retain.protocol))
    groups, draws, seed = evaluation.sets["forget"].groups, request.draws, request.seed
    interval = intervals.forget_quality_interval(ratios, retain_ratios, groups, draws, seed)
    return quality, interval


@contextlib.contextmanager
def _errors_starting_with(source: str) -> Iterator[None]:
    """Raise a ValueError of the block as a ConfigError that starts with its source."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
