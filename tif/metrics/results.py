"""All numbers of recorded evaluations with intervals: what `tif evaluate --json` prints.

Called by tif/evaluate.py (recorded evaluations), evaluation/model_numbers.py (a model that was just
evaluated) and reports/run.py (a run's summary).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from tif.config.errors import ConfigError
from tif.metrics import fluency, intervals, membership, memorization, muse, overall, tofu
from tif.metrics.values import Floats, mean_or_none
from tif.records import comparability
from tif.records.types import Evaluation, RecordSet

FIRST_SETS = ("forget", "retain", "real_authors", "world_facts")  # of TOFU, in the order shown

Values = dict[str, dict[str, Floats | None]]  # set -> metric -> (N,)


@dataclasses.dataclass(frozen=True)
class Rules:
    """How numbers are made from records.

    Attributes:
        draws: bootstrap draws behind each interval.
        seed: owner of the draws.
        allow_mismatch: compare with the retain model also where the two should not be compared.
    """

    draws: int = 2000
    seed: int = 0
    allow_mismatch: bool = False


@dataclasses.dataclass(frozen=True)
class Extras:
    """What records do not hold; computed beside them on request.

    Attributes:
        reference: another model's evaluation, for the membership attack that compares with one.
        gradient_norms: set -> (N,), for the membership attack of that name.
        clean: set -> (N,), a classifier's probabilities that the generations are no gibberish.
    """

    reference: Evaluation | None = None
    gradient_norms: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    clean: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An evaluation, and the retain model's where it is known.

    Attributes:
        evaluation: of TOFU's sets or of MUSE's (or of texts asked in the same way).
        retain: of the retain model.
        source, retain_source: what an error about either starts with: a key and a path.
    """

    evaluation: Evaluation
    retain: Evaluation | None
    source: str
    retain_source: str

    def check_comparable(self, allow_mismatch: bool) -> str | None:
        """Return in what the two should not be compared; None where they may be.

        Raises:
            ConfigError: If they should not be compared and that is not allowed, or one of them has
                no records of what is compared.
        """
        if self.retain is None:
            return None
        sets = muse.COMPARED if overall.is_muse(self.evaluation) else ("forget",)
        if missing := comparability.find_missing_records(self.evaluation, self.retain, sets):
            raise ConfigError(f"{self.retain_source}: {missing}")
        mismatch = comparability.find_mismatch(self.evaluation, self.retain, sets)
        if mismatch and not allow_mismatch:
            raise ConfigError(
                f"{self.retain_source}: {mismatch}; allow_mismatch=true computes it all the same"
            )
        return mismatch


def compute_results(comparison: Comparison, rules: Rules, extras: Extras) -> dict[str, Any]:
    """Return every metric of an evaluation with its interval: the content of `--json`.

    Raises:
        ConfigError: One line a problem.
    """
    evaluation, retain = comparison.evaluation, comparison.retain
    mismatch = comparison.check_comparable(rules.allow_mismatch)
    if overall.is_muse(evaluation):
        results = _compute_muse_results(comparison, rules, extras)
    else:
        results = _compute_tofu_results(comparison, rules, extras)
    retain_metrics = None
    if retain:
        with _blaming(comparison.retain_source):
            retain_metrics = overall.aggregate(retain) or None
    return results | {
        "retain_metrics": retain_metrics,
        "mismatch": mismatch,
        "questions": {name: len(records.records) for name, records in evaluation.sets.items()},
        "model": evaluation.model,
        "protocol": dict(evaluation.protocol),
        "retain_model": retain.model if retain else None,
        "retain_protocol": dict(retain.protocol) if retain else None,
        "bootstrap": {"level": intervals.LEVEL, "draws": rules.draws, "seed": rules.seed},
    }


def named_intervals(
    evaluation: Evaluation, retain: Evaluation | None
) -> dict[str, intervals.Interval | None]:
    """Return every metric's interval by its stable name, as in a run's metrics.jsonl.

    Raises:
        ConfigError: As `compute_results`.
    """
    comparison = Comparison(evaluation, retain, evaluation.model, "the retain model")
    around = compute_results(comparison, Rules(), Extras())["intervals"]
    if "tasks" not in around:
        return dict(around)
    named = _by_stable_name(around["tasks"])
    named["utility/model"] = around["model_utility"]
    named["forget/quality"] = around["forget_quality"]
    return named


def _compute_tofu_results(comparison: Comparison, rules: Rules, extras: Extras) -> dict[str, Any]:
    sets = comparison.evaluation.sets
    names = [name for name in FIRST_SETS if name in sets]
    names += [name for name in sets if name not in FIRST_SETS]
    values: Values = {}
    with _blaming(comparison.source):
        for name in names:
            values[name] = tofu.question_values(sets[name]) | _fluency_values(sets[name], extras)
    quality, quality_interval = _compare_forget_sets(comparison, rules)
    tasks = {name: _means(metrics) for name, metrics in values.items()}
    utility = mean_or_none(tofu.model_utility(_by_stable_name(tasks)))
    around = intervals.mean_intervals(values, rules.draws, rules.seed)
    task_intervals: dict[str, Any] = {}
    for name, metrics in values.items():
        task_intervals[name] = {metric: around[f"{name}/{metric}"] for metric in metrics}
    return {
        "model_utility": utility,
        "forget_quality": quality,
        "tasks": tasks,
        "intervals": {
            "model_utility": around["utility/model"],
            "forget_quality": quality_interval,
            "tasks": task_intervals,
        },
    }


def _compare_forget_sets(
    comparison: Comparison, rules: Rules
) -> tuple[float | None, intervals.Interval | None]:
    """Return forget quality, and its interval where the questions are the same."""
    evaluation, retain = comparison.evaluation, comparison.retain
    if retain is None:
        return None, None
    with _blaming(comparison.retain_source):
        tofu.log_truth_ratios(retain.sets["forget"])  # an error here is the retain model's
    with _blaming(comparison.source):
        quality = tofu.forget_quality(evaluation, retain, allow_mismatch=True)
        matching = comparability.align_records(evaluation.sets["forget"], retain.sets["forget"])
        if matching is None:
            return quality, None
        ratios = tofu.log_truth_ratios(evaluation.sets["forget"])
        retain_ratios = tofu.log_truth_ratios(matching)
    around = intervals.forget_quality_interval(ratios, retain_ratios, rules.draws, rules.seed)
    return quality, around


def _compute_muse_results(comparison: Comparison, rules: Rules, extras: Extras) -> dict[str, Any]:
    evaluation, retain = comparison.evaluation, comparison.retain
    metrics: dict[str, float | None] = {}
    around: dict[str, intervals.Interval | None] = {}
    others: Values = {}
    with _blaming(comparison.source):
        rouge = muse.question_values(evaluation)
        for name, records in evaluation.sets.items():
            others[name] = _fluency_values(records, extras) | memorization.question_values(records)
        attacks = muse.attack_scores(evaluation, extras.reference, extras.gradient_norms)
    for name, values in rouge.items():
        metrics[f"muse/{name}"] = mean_or_none(values)
        drawn = intervals.mean_intervals({name: {"rouge": values}}, rules.draws, rules.seed)
        around[f"muse/{name}"] = drawn[f"{name}/rouge"]
    if retain:
        with _blaming(comparison.retain_source):
            metrics["muse/privleak"] = muse.privleak(evaluation, retain, allow_mismatch=True)
            interval = muse.privleak_interval(evaluation, retain, rules.draws, rules.seed)
            around["muse/privleak"] = interval
    elif muse.FORGET in evaluation.sets:
        metrics["muse/privleak"], around["muse/privleak"] = None, None
    for attack, scores in attacks.items():
        metrics[f"membership/{attack}"] = membership.auc(*scores)
        interval = membership.auc_interval(*scores, rules.draws, rules.seed)
        around[f"membership/{attack}"] = interval
    metrics |= _by_stable_name({name: _means(values) for name, values in others.items()})
    around |= intervals.mean_intervals(others, rules.draws, rules.seed)
    del around["utility/model"]  # TOFU's
    return {"metrics": metrics, "intervals": around}


def _fluency_values(records: RecordSet, extras: Extras) -> dict[str, Floats | None]:
    """Return fluency of a set's generations; {} unless every record has one."""
    texts = [record.generated for record in records.records if record.generated is not None]
    if not texts or len(texts) < len(records.records):
        return {}
    return dict(fluency.question_values(texts, extras.clean.get(records.name)))


def _means(metrics: Mapping[str, Floats | None]) -> dict[str, float | None]:
    return {metric: mean_or_none(values) for metric, values in metrics.items()}


def _by_stable_name(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return {"<set>/<metric>": value} of set -> metric -> value."""
    named = {}
    for name, metrics in sets.items():
        for metric, value in metrics.items():
            named[f"{name}/{metric}"] = value
    return named


@contextlib.contextmanager
def _blaming(source: str) -> Iterator[None]:
    """Turn a ValueError raised inside into a ConfigError that starts with its source."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
