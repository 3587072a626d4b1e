"""All numbers of recorded evaluations with intervals: what `tif evaluate --json` prints.

Called by tif/evaluate.py (recorded evaluations), evaluation/model_numbers.py (a model that was just
evaluated) and reports/summary.py (a run's summary).
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tif.config.errors import ConfigError
from tif.metrics import fluency, intervals, membership, memorization, muse, overall, tofu
from tif.metrics.cards import read_limits
from tif.metrics.intervals import Interval
from tif.metrics.registry import ANY_SET
from tif.metrics.values import Floats, mean_or_none
from tif.records import comparability
from tif.records.protocols import arithmetic_of
from tif.records.types import Evaluation, RecordSet

FIRST_SETS = ("forget", "retain", "real_authors", "world_facts")  # of TOFU, in the order shown


@dataclasses.dataclass(frozen=True)
class Request:
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


def compute_results(request: Request) -> dict[str, Any]:
    """Return every metric of an evaluation with its interval: the content of `--json`.

    Raises:
        ConfigError: One line a problem.
    """
    evaluation, retain = request.evaluation, request.retain
    mismatch = _check_comparable(request)
    compute = _compute_muse_results if overall.is_muse(evaluation) else _compute_tofu_results
    results = compute(request)
    retain_metrics = None
    if retain:
        with _errors_starting_with(request.retain_source):
            retain_metrics = _all_means(retain) or None
    return results | {
        "retain_metrics": retain_metrics,
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
    evaluation: Evaluation, retain: Evaluation | None
) -> dict[str, Interval | None]:
    """Return every metric's interval by its stable name, as in a run's metrics.jsonl.

    Raises:
        ConfigError: As `compute_results`.
    """
    request = Request(evaluation, retain, evaluation.model, "the retain model")
    results = compute_results(request)["intervals"]
    if "tasks" not in results:
        return dict(results)
    named = _by_stable_name({**results["tasks"], "membership": results.get("membership", {})})
    quality, utility = results["forget_quality"], results["model_utility"]
    return named | {"utility/model": utility, "forget/quality": quality}


def _check_comparable(request: Request) -> str | None:
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


def _compute_tofu_results(request: Request) -> dict[str, Any]:
    sets = request.evaluation.sets
    names = [name for name in FIRST_SETS if name in sets]
    names += [name for name in sets if name not in FIRST_SETS]
    values: dict[str, dict[str, Floats | None]] = {}
    rules = arithmetic_of(request.evaluation.protocol)
    with _errors_starting_with(request.source):
        for name in names:
            values[name] = tofu.question_values(sets[name], rules)
            values[name] |= _fluency_values(sets[name], request.clean.get(name))
    quality, quality_interval = _compare_forget_sets(request)
    groups = {name: sets[name].groups for name in names}
    tasks, task_intervals = {}, {}
    for name, metrics in values.items():
        tasks[name] = {metric: mean_or_none(metrics[metric]) for metric in metrics}
        task_intervals[name] = _mean_intervals(metrics, groups[name])
    results: dict[str, Any] = {
        "model_utility": mean_or_none(tofu.model_utility(_by_stable_name(tasks))),
        "forget_quality": quality,
        "tasks": tasks,
        "intervals": {
            "model_utility": intervals.utility_interval(values, groups),
            "forget_quality": quality_interval,
            "tasks": task_intervals,
        },
    }
    attacks, attack_intervals = _membership_results(request)
    if attacks:
        results["membership"] = attacks
        results["intervals"]["membership"] = attack_intervals
    return results


def _mean_intervals(
    values: Mapping[str, Floats | None], groups: Sequence[str]
) -> dict[str, Interval | None]:
    """Return the interval of each metric of a set; None where it has no values."""
    around: dict[str, Interval | None] = {}
    for metric, numbers in values.items():
        around[metric] = None
        if numbers is not None:
            limits = read_limits(f"{ANY_SET}/{metric}")
            around[metric] = intervals.mean_interval(numbers, groups, limits)
    return around


def _membership_results(
    request: Request,
) -> tuple[dict[str, float | None], dict[str, Interval | None]]:
    """Return the AUC of each membership attack and PrivLeak, with intervals; {} without holdout."""
    evaluation, retain = request.evaluation, request.retain
    metrics: dict[str, float | None] = {}
    around: dict[str, Interval | None] = {}
    groups = membership.compared_groups(evaluation)
    with _errors_starting_with(request.source):
        attacks = membership.attack_scores(evaluation, request.reference, request.gradient_norms)
    for attack, scores in attacks.items():
        metrics[attack] = membership.auc(*scores)
        around[attack] = membership.auc_interval(*scores, groups)
    if attacks and retain and membership.compared_sets(retain):
        with _errors_starting_with(request.retain_source):
            metrics["privleak"] = muse.privleak(evaluation, retain, allow_mismatch=True)
            around["privleak"] = muse.privleak_interval(evaluation, retain)
    elif evaluation.attack_scores and retain:
        leak, interval = muse.logged_privleak(evaluation, retain)
        if leak is not None:
            metrics["privleak"], around["privleak"] = leak, interval
    return metrics, around


def _compare_forget_sets(request: Request) -> tuple[float | None, Interval | None]:
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


def _compute_muse_results(request: Request) -> dict[str, Any]:
    evaluation, retain = request.evaluation, request.retain
    metrics: dict[str, float | None] = {}
    around: dict[str, Interval | None] = {}
    others: dict[str, dict[str, Floats | None]] = {}
    with _errors_starting_with(request.source):
        rouge = muse.question_values(evaluation)
        for name, records in evaluation.sets.items():
            others[name] = _fluency_values(records, request.clean.get(name))
            others[name] |= memorization.question_values(records)
        for name, text_scores in muse.text_values(evaluation).items():
            others[name] |= text_scores
    for name, values in rouge.items():
        metrics[f"muse/{name}"] = mean_or_none(values)
        groups, limits = evaluation.sets[name].groups, read_limits(f"muse/{name}")
        around[f"muse/{name}"] = intervals.mean_interval(values, groups, limits)
    attacks, attack_intervals = _membership_results(request)
    if retain or muse.FORGET in evaluation.sets:
        metrics["muse/privleak"] = attacks.pop("privleak", None)
        around["muse/privleak"] = attack_intervals.pop("privleak", None)
    metrics |= _by_stable_name({"membership": attacks})
    around |= _by_stable_name({"membership": attack_intervals})
    for label, other_values in _by_stable_name(others).items():
        metrics[label] = mean_or_none(other_values)
    for name, set_values in others.items():
        groups = evaluation.sets[name].groups
        around |= _by_stable_name({name: _mean_intervals(set_values, groups)})
    return {"metrics": metrics, "intervals": around}


def _all_means(evaluation: Evaluation) -> dict[str, float | None]:
    """Return what an evaluation alone tells: a run's metrics, and those that runs leave out."""
    rules, values = arithmetic_of(evaluation.protocol), {}
    for name, records in evaluation.sets.items():
        values[name] = _fluency_values(records, None)
        if not overall.is_muse(evaluation):
            values[name] |= tofu.question_values(records, rules)
    named = _by_stable_name(values)
    means = {name: mean_or_none(by_question) for name, by_question in named.items()}
    return means | overall.aggregate(evaluation)


def _fluency_values(
    records: RecordSet, clean: list[float] | None
) -> dict[str, Floats | None]:
    """Return fluency of a set's generations; {} unless every record has one."""
    texts = [record.generated for record in records.records if record.generated is not None]
    if not texts or len(texts) < len(records.records):
        return {}
    return dict(fluency.question_values(texts, clean))


def _by_stable_name(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return {"<set>/<metric>": value} of set -> metric -> value."""
    named = {}
    for name, metrics in sets.items():
        for metric, value in metrics.items():
            named[f"{name}/{metric}"] = value
    return named


@contextlib.contextmanager
def _errors_starting_with(source: str) -> Iterator[None]:
    """Raise a ValueError of the block as a ConfigError that starts with its source."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
