"""The rows of a run's metrics.jsonl: how they are written, dropped after a stop, and read.

A row is {"epoch", "step", metric: value, ...}. A training row has "train/loss" and the number of
its step, from 0. An evaluation row has the number of steps before the evaluation; epoch 0 is
before training. Written by the logger in `training/callbacks`, read by `reports` and `training`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.utils.files import append_json_lines, read_json_lines, write_json_lines

FILE_NAME = "metrics.jsonl"

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return all complete rows of a metrics.jsonl; none where there is no file."""
    return read_json_lines(path)


def read_evaluation_rows(path: Path) -> list[Row]:
    """Return the rows of the evaluations, in order."""
    return [row for row in read_rows(path) if is_evaluation_row(row)]


def read_training_rows(path: Path) -> list[Row]:
    """Return the rows of the training steps, in order."""
    return [row for row in read_rows(path) if not is_evaluation_row(row)]


def is_evaluation_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of an evaluation, not of a training step."""
    return "train/loss" not in row


def append_row(path: Path, epoch: int, step: int | None, metrics: Mapping[str, float]) -> None:
    """Append a row at once."""
    append_json_lines(path, [{"epoch": epoch, "step": step, **metrics}])


def drop_rows_after(path: Path, steps: int) -> None:
    """Drop the rows after a number of optimizer steps (-1: all), which a resumed run makes again.

    A row that was cut goes too.
    """
    if not path.exists():
        return
    rows = []
    for row in read_rows(path):
        steps_before = row["step"] if is_evaluation_row(row) else row["step"] + 1
        if steps_before <= steps:
            rows.append(row)
    write_json_lines(path, rows)
