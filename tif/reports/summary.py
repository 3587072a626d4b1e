"""What a run reached: the content of summary.json, and the epoch that was chosen.

Written by training/train.py at the end of a run; read by the tables and pages of this room.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tif.config.data import Data
from tif.config.evaluation import Eval
from tif.metrics import overall
from tif.metrics.choice import split_evaluation
from tif.metrics.targeted import summarize_forget_words
from tif.records import files as records
from tif.records.json_values import load_json, parse
from tif.records.run_folder import (
    CONFIG_FILE,
    INTERVALS,
    RETAIN_FOLDER,
    SUMMARY_FILE,
    count_steps,
    deletable,
    evaluation_rows,
    read_config,
    read_records,
    read_retain_records,
    read_steps,
    read_summary,
    read_times,
    read_tokens,
    training_rows,
)
from tif.records.types import AnswersBySet
from tif.utils.terminal import describe_seconds

K = TypeVar("K")


@dataclasses.dataclass(frozen=True)
class Best:
    """The epoch that a run's rule chose, and its numbers on the half that did not choose it."""

    epoch: int
    # the numbers of the other half; empty where its records are gone
    row: dict[str, Any] = dataclasses.field(default_factory=dict)
    # of these numbers
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    # what the other half is: number of each unit by set
    groups: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class RunNumbers:
    """The numbers of a run, as its tables and its page show them."""

    # of the evaluated epochs, in order; epoch 0 is the model before training
    rows: Sequence[Mapping[str, Any]]
    retain: Mapping[str, float | None]  # metrics of the retain model; empty where there is none
    intervals: Mapping[str, tuple[float, float]]  # of the last epoch, by metric
    # the chosen epoch, with its numbers on the half that did not choose it
    best: Best | None = None
    # what the intervals are over: number of each unit by set
    groups: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    # of the first epoch, by metric
    start_intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)

    @property
    def has_best_column(self) -> bool:
        """Return whether the chosen epoch is another than the last, which is the result."""
        return self.best is not None and self.best.epoch != self.rows[-1]["epoch"]


def read_run_numbers(folder: Path, summary: Mapping[str, Any] | None = None) -> RunNumbers:
    """Return the numbers of a run; `summary`: content of its summary.json, if not yet written.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    known = vars(read_summary(folder)) if summary is None else summary
    return RunNumbers(
        evaluation_rows(folder), retain_row(folder), known["intervals"], read_best(folder, summary),
        known["groups"], known["start_intervals"],
    )  # fmt: skip


def find_best_epoch(folder: Path) -> int | None:
    """Return the epoch that `eval.best` chose; None where nothing is chosen."""
    metric = overall.get_best_metric(eval_section(folder).best)
    return overall.find_best_epoch(evaluation_rows(folder), metric)


def read_best(folder: Path, summary: Mapping[str, Any] | None = None) -> Best | None:
    """Return what summary.json says of the chosen epoch; None where it says nothing.

    `summary`: its content, where it is not written yet.
    """
    path = folder / SUMMARY_FILE
    with deletable(path):
        content = summary or (load_json(path) if path.exists() else {})
        row = parse(dict[str, Any] | None, content.get("best"), path, "best")
        if not row or "best_groups" not in content:  # older runs report what they chose on
            return None
        values = {"epoch": row.get("epoch"), "row": row}
        values["intervals"] = content.get("best_intervals", {})
        best: Best = parse(Best, values | {"groups": content["best_groups"]}, path, "best")
    return best


def compute_best(folder: Path, epoch: int) -> Best:
    """Return the numbers of a chosen epoch from its records, on the half that did not choose it."""
    from tif.metrics.results import count_groups  # imports scipy

    evaluation, retain = read_records(folder, epoch), read_retain_records(folder)
    halves = split_evaluation(evaluation, retain) if evaluation else None
    if halves is None:
        return Best(epoch, {"epoch": epoch})
    half, retain_half = halves[1]
    first = evaluation_rows(folder)[0]
    start = first if first["epoch"] == 0 else None
    metrics = overall.aggregate(half, retain_half, read_tokens(folder), start)
    row = {name: value for name, value in metrics.items() if value is not None}
    intervals = _compute_intervals(half, retain_half, read_tokens(folder))
    return Best(epoch, {"epoch": epoch, **row}, intervals, count_groups(half))


def _compute_intervals(
    evaluation: records.Evaluation | None, retain: records.Evaluation | None, tokens: AnswersBySet
) -> dict[str, Any]:
    """Return the intervals of the metrics that have one."""
    from tif.metrics.results import named_intervals  # imports scipy

    intervals = named_intervals(evaluation, retain, tokens) if evaluation else {}
    return {metric: pair for metric, pair in intervals.items() if pair is not None}


def summarize(folder: Path, retain: records.Evaluation | None = None) -> dict[str, Any]:
    """Return the content of `summary.json`: rows of metrics, and their intervals.

    `retain`: the retain model's records; without them, metrics that compare get no interval.
    """
    from tif.metrics.results import count_groups

    evaluations, training = evaluation_rows(folder), training_rows(folder)
    best_epoch = find_best_epoch(folder)
    best = None if best_epoch is None else compute_best(folder, best_epoch)
    rows: dict[str, Any] = {"start": None, "end": None}
    if evaluations:
        rows = {"start": evaluations[0], "end": evaluations[-1]}
    stored = {row["epoch"]: read_records(folder, row["epoch"]) for row in rows.values() if row}
    tokens = read_tokens(folder)
    by_epoch = {epoch: _compute_intervals(stored[epoch], retain, tokens) for epoch in stored}
    intervals = {}
    for key, name in INTERVALS.items():
        intervals[key] = by_epoch[rows[name]["epoch"]] if rows[name] else {}
    last = stored[evaluations[-1]["epoch"]] if evaluations else None
    return {
        **rows,
        "best": best.row if best else None,
        **intervals,
        "best_intervals": best.intervals if best else {},
        "best_groups": best.groups if best else {},
        "groups": count_groups(last) if last else {},
        "retain_model": retain_row(folder) or None,
        "training": training[-1] if training else None,
        "steps": count_steps(folder),
        "seconds": read_times(folder),
    }


def retain_row(folder: Path) -> dict[str, float | None]:
    """Return the retain model's metrics under the run's rules; empty where the run had none."""
    path = folder / RETAIN_FOLDER / records.AGGREGATES
    with deletable(path):
        content = load_json(path) if path.exists() else {}
        metrics = parse(dict[str, float | None], content.get("metrics", {}), path, "metrics")
    retain = read_retain_records(folder)
    if retain is not None:
        metrics |= summarize_forget_words(retain.sets, read_tokens(folder))
    return metrics


def read_numbers(folder: Path) -> dict[str, Any]:
    """Return the numbers of a run as JSON: its epochs, the retain model, intervals and steps."""
    numbers = vars(read_run_numbers(folder))
    around = {key: numbers[key] for key in ("intervals", "start_intervals", "groups")}
    rows = {"epochs": numbers["rows"], "retain_model": numbers["retain"]}
    return {**rows, **around, "steps": read_steps(folder)}


@dataclasses.dataclass(frozen=True)
class ReportKeys:
    """Keys of section `eval`, with its defaults."""

    samples: int = Eval.samples
    best: str = Eval.best


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """Keys of section `data`, with its defaults."""

    benchmark: str = Data.benchmark
    split: str | None = Data.split


def title_of(folder: Path) -> str:
    """Return what a run is called in its reports: its folder's name, with a sweep's run before it.

    runs/methods/tpo/seed0 is tpo/seed0.
    """
    folder = folder.resolve()
    is_seed = re.fullmatch(r"seed\d+(-\d+)?", folder.name)
    return f"{folder.parent.name}/{folder.name}" if is_seed else folder.name


def eval_section(folder: Path) -> ReportKeys:
    """Return what reports read of section `eval` of the run's configuration."""
    return _read_section(folder, "eval", ReportKeys)


def data_section(folder: Path) -> DataKeys:
    """Return what reports read of section `data` of the run's configuration."""
    return _read_section(folder, "data", DataKeys)


def _read_section(folder: Path, section: str, keys_type: type[K]) -> K:
    """Return some keys of a section of the run's config.yaml; defaults where it has none."""
    keys, path = read_config(folder), folder / CONFIG_FILE
    with deletable(path):
        return parse(keys_type, keys.get(section, {}), path, section)


def describe_times(folder: Path) -> str:
    """Return how long the parts of a run took, as "stage target 2 min 1 s, training 48 s"."""
    parts = []
    for name, seconds in read_times(folder).items():
        if seconds >= 1:
            parts.append(f"{name} {describe_seconds(seconds)}")
    return ", ".join(parts)
