"""Recorded evaluations to everything that can be said about them, with intervals: no model, no torch."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from tif.config.errors import ConfigError
from tif.metrics import fluency, intervals, membership, memorization, muse, overall, tofu
from tif.records import comparability as matching
from tif.records.types import Evaluation

TOFU_CARDS = ("probability", "rouge", "truth_ratio", "model_utility", "forget_quality")
MEMORIZATION_CARDS = ("exact_memorization", "extraction_strength", "kl")
SETS = ("forget", "retain", "real_authors", "world_facts")


@dataclasses.dataclass(frozen=True)
class Rules:
    """How numbers are made from records.

    Attributes:
        draws: bootstrap draws behind each interval.
        seed: owner of the draws.
        allow_mismatch: compare with the retain model also where the two do not compare.
    """

    draws: int = 2000
    seed: int = 0
    allow_mismatch: bool = False


@dataclasses.dataclass(frozen=True)
class Extras:
    """What records do not hold, by set and question: made beside them on request.

    Attributes:
        reference: another model's evaluation, for the membership attack that compares with one.
        gradient_norms: (N,) a set, for the membership attack of that name.
        clean: (N,) a set, a classifier's probabilities that the generations are no gibberish.
    """

    reference: Evaluation | None = None
    gradient_norms: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    clean: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)


def numbers(
    ours: Evaluation, retain: Evaluation | None, rules: Rules, extras: Extras, where: str, where_retain: str
) -> dict[str, Any]:
    """Every metric of an evaluation with its interval: the content of `--json`.

    Args:
        ours: of TOFU's sets, or of MUSE's (or the like of them from texts of one's own).
        retain: the retain model's.
        rules, extras: see there.
        where, where_retain: what a line about either starts with.

    Raises:
        ConfigError: One line a problem.
    """
    of_muse = any(name in ours.sets for name in muse.SETS)
    mismatch = None
    if retain:
        compared = muse.COMPARED if of_muse else ("forget",)
        mismatch = matching.mismatch(ours, retain, compared)
        if missing := matching.no_records(ours, retain, compared):
            raise ConfigError(f"{where_retain}: {missing}")
        if mismatch and not rules.allow_mismatch:
            raise ConfigError(f"{where_retain}: {mismatch}; allow_mismatch=true computes it all the same")
    found = (_of_muse if of_muse else _of_tofu)(ours, retain, rules, extras, where, where_retain)
    theirs: dict[str, float | None] = {}
    if retain:
        with told(where_retain):
            theirs = overall.aggregate(retain)
    return found | {
        "retain_metrics": theirs or None,
        "mismatch": mismatch,
        "questions": {name: len(own.records) for name, own in ours.sets.items()},
        "model": ours.model,
        "protocol": dict(ours.protocol),
        "retain_model": retain.model if retain else None,
        "retain_protocol": dict(retain.protocol) if retain else None,
        "bootstrap": {"level": intervals.LEVEL, "draws": rules.draws, "seed": rules.seed},
    }


def named_intervals(ours: Evaluation, retain: Evaluation | None) -> dict[str, intervals.Interval | None]:
    """Every metric's interval by its stable name, as the metrics of a run are called.

    Raises:
        ConfigError: As `numbers`.
    """
    found = numbers(ours, retain, Rules(), Extras(), ours.model, "the retain model")["intervals"]
    if "tasks" not in found:
        return dict(found)
    named = {f"{name}/{metric}": around for name, own in found["tasks"].items() for metric, around in own.items()}
    return named | {"utility/model": found["model_utility"], "forget/quality": found["forget_quality"]}


def _of_tofu(
    ours: Evaluation, retain: Evaluation | None, rules: Rules, extras: Extras, where: str, where_retain: str
) -> dict[str, Any]:
    names = [name for name in SETS if name in ours.sets] + [name for name in ours.sets if name not in SETS]
    quality, about_quality = None, None
    if retain:
        with told(where_retain):
            tofu.log_truth_ratios(retain.sets["forget"])
    with told(where):
        values = {name: {**tofu.values(ours.sets[name]), **_fluency(ours, name, extras)} for name in names}
        if retain:
            quality = tofu.forget_quality(ours, retain, allow_mismatch=True)
            if other := matching.aligned(ours.sets["forget"], retain.sets["forget"]):
                ratios = tofu.log_truth_ratios(ours.sets["forget"]), tofu.log_truth_ratios(other)
                about_quality = intervals.of_forget_quality(*ratios, rules.draws, rules.seed)
    means = {f"{n}/{m}": None if x is None else float(x.mean()) for n, own in values.items() for m, x in own.items()}
    parts = tofu.utility_parts(means)
    around = intervals.of_means(values, rules.draws, rules.seed)
    return {
        "model_utility": None if parts is None else float(tofu.harmonic_mean(parts)),
        "forget_quality": quality,
        "tasks": {n: {m: means[f"{n}/{m}"] for m in own} for n, own in values.items()},
        "intervals": {
            "model_utility": around["utility/model"],
            "forget_quality": about_quality,
            "tasks": {n: {m: around[f"{n}/{m}"] for m in own} for n, own in values.items()},
        },
    }


def _of_muse(
    ours: Evaluation, retain: Evaluation | None, rules: Rules, extras: Extras, where: str, where_retain: str
) -> dict[str, Any]:
    metrics: dict[str, float | None] = {}
    around: dict[str, intervals.Interval | None] = {}
    with told(where):
        rouge = muse.values(ours)
        values = {
            name: {"rougeL_f1": rouge.get(name), **_fluency(ours, name, extras), **memorization.values(own)}
            for name, own in ours.sets.items()
        }
        attacks = muse.attacks(ours, extras.reference, extras.gradient_norms)
    drawn = intervals.of_means(values, rules.draws, rules.seed)
    for name, found in rouge.items():
        metrics[f"muse/{name}"], around[f"muse/{name}"] = float(found.mean()), drawn[f"{name}/rougeL_f1"]
    if retain:
        with told(where_retain):
            metrics["muse/privleak"] = muse.privleak(ours, retain, allow_mismatch=True)
            around["muse/privleak"] = muse.privleak_interval(ours, retain, rules.draws, rules.seed)
    elif muse.FORGET in ours.sets:
        metrics["muse/privleak"], around["muse/privleak"] = None, None
    for attack, scores in attacks.items():
        metrics[f"membership/{attack}"] = membership.auc(*scores)
        around[f"membership/{attack}"] = membership.auc_interval(*scores, rules.draws, rules.seed)
    for name, own in values.items():
        for metric, found_values in own.items():
            if metric != "rougeL_f1" and found_values is not None:
                label = f"{name}/{metric}"
                metrics[label], around[label] = float(found_values.mean()), drawn[label]
    return {"metrics": metrics, "intervals": around}


def _fluency(ours: Evaluation, name: str, extras: Extras) -> dict[str, fluency.Floats | None]:
    """Of a set's generations; {} where nothing was generated."""
    texts = [record.generated for record in ours.sets[name].records]
    if not texts or None in texts:
        return {}
    found: dict[str, fluency.Floats | None] = dict(fluency.values([text for text in texts if text is not None]))
    return found | ({"clean": fluency.cleans(extras.clean[name])} if name in extras.clean else {})


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turn a ValueError raised inside into the user's, told with its place."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def metric_cards() -> dict[str, str]:
    """Each metric's docstring by the metric's name, as far as it is about the metric: no arguments, no errors."""
    functions: dict[str, Any] = {name: getattr(tofu, name) for name in TOFU_CARDS}
    functions |= {name: getattr(memorization, name) for name in MEMORIZATION_CARDS}
    functions |= {**muse.CARDS, "membership/...": membership.auc, **membership.CARDS, **fluency.CARDS}
    functions[overall.SCORE] = overall.score
    ends = ("\n\nArgs:", "\n\nRaises:", "\n\nReturns:")
    found = {}
    for name, function in functions.items():
        text = inspect.getdoc(function) or ""
        for end in ends:
            text = text.split(end)[0]
        found[name] = text
    return found
