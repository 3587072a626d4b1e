"""What a run reached: the content of summary.json, and the epoch that was chosen.

Written by training/run.py at the end of a run; read by the tables and pages of this room.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.metrics import overall
from tif.metrics.choice import split_evaluation
from tif.metrics.targeted import summarize_forget_words
from tif.records import files as records
from tif.records.json_values import load_json, parse
from tif.records.run_times import read_times
from tif.reports.run_folder import (
    INTERVALS,
    SUMMARY_FILE,
    count_steps,
    deletable,
    eval_section,
    evaluation_rows,
    read_records,
    read_retain_records,
    read_tokens,
    retain_row,
    training_rows,
)


@dataclasses.dataclass(frozen=True)
class Best:
    """The epoch that a run's rule chose, and its numbers on the half that did not choose it.

    Attributes:
        epoch: the epoch.
        row: the numbers of the other half; empty where its records are gone.
        intervals: of these numbers.
        groups: what the other half is: number of each unit by set.
    """

    epoch: int
    row: dict[str, Any] = dataclasses.field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    groups: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


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
    from tif.metrics.results import count_groups, named_intervals  # imports scipy

    evaluation, retain = read_records(folder, epoch), read_retain_records(folder)
    halves = split_evaluation(evaluation, retain) if evaluation else None
    if halves is None:
        return Best(epoch, {"epoch": epoch})
    half, retain_half = halves[1]
    metrics = overall.aggregate(half, retain_half)
    metrics |= summarize_forget_words(half.sets, read_tokens(folder))
    row = {name: value for name, value in metrics.items() if value is not None}
    intervals = _without_none(named_intervals(half, retain_half))
    return Best(epoch, {"epoch": epoch, **row}, intervals, count_groups(half))


def _without_none(intervals: Mapping[str, Any]) -> dict[str, Any]:
    return {metric: pair for metric, pair in intervals.items() if pair is not None}


def summarize(folder: Path, retain: records.Evaluation | None = None) -> dict[str, Any]:
    """Return the content of `summary.json`: rows of metrics, and their intervals.

    `retain`: the retain model's records; without them, metrics that compare get no interval.
    """
    from tif.metrics.results import count_groups

    evaluations, training = evaluation_rows(folder), training_rows(folder)
    best_epoch = find_best_epoch(folder)
    best = None if best_epoch is None else compute_best(folder, best_epoch)
    rows = {
        "start": evaluations[0] if evaluations else None,
        "end": evaluations[-1] if evaluations else None,
    }
    epochs = {row["epoch"] for row in rows.values() if row}
    last = read_records(folder, evaluations[-1]["epoch"]) if evaluations else None
    by_epoch = {epoch: _compute_intervals(folder, epoch, retain) for epoch in epochs}
    intervals = {}
    for key, name in INTERVALS.items():
        row = rows[name]
        intervals[key] = by_epoch[row["epoch"]] if row else {}
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


def _compute_intervals(
    folder: Path, epoch: int, retain: records.Evaluation | None
) -> dict[str, tuple[float, float]]:
    from tif.metrics.results import named_intervals  # imports scipy

    evaluation = read_records(folder, epoch)
    return _without_none(named_intervals(evaluation, retain)) if evaluation else {}
