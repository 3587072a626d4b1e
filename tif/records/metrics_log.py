"""The rows of a run's metrics.jsonl: how they are written, dropped after a stop, and read.

A row is {"epoch", "step", metric: value, ...}. A training row has "train/loss" and the number of
its step, from 0. An evaluation row has the number of steps before the evaluation; epoch 0 is before
training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.utils.files import DamagedFile, append_json_lines, read_json_lines, write_json_lines

FILE_NAME = "metrics.jsonl"
LARGEST = 1e300  # no value of a row is as large

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return all complete rows of a metrics.jsonl; none where there is no file.

    Raises:
        DamagedFile: With the first line that is no row.
    """
    rows, damage = read_intact_rows(path)
    if damage:
        next_step = "delete what is damaged, or the run folder to make the run again"
        raise DamagedFile(f"{damage}; {next_step}")
    return rows


def read_intact_rows(
    path: Path, check: Callable[[Row], str | None] = lambda row: None
) -> tuple[list[Row], str | None]:
    """Return the rows before the first damaged line, and what is wrong with that line or None.

    `check`: returns what else is wrong with a row, or None.
    """
    rows, damage = read_json_lines(path)
    for number, row in enumerate(rows, 1):
        problem = _find_problem(row) or check(row)
        if problem:
            return rows[: number - 1], f"{path}: line {number} is damaged ({problem})"
    return rows, damage


def _find_problem(row: Row) -> str | None:
    """Return what is wrong with a row: a number that counts, or any other number."""
    for name in ("epoch", "step"):
        count = row.get(name)
        if type(count) is not int or not 0 <= count < 2**53:
            return f"{name} is {count!r:.40}, want a whole number"
    for name, value in row.items():
        is_number = type(value) in (int, float) and abs(value) < LARGEST  # false also of NaN
        if value is not None and not is_number:
            return f"{name} is {value!r:.40}, want a finite number"
    return None


def is_evaluation_row(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of an evaluation, not of a training step."""
    return "train/loss" not in row


def append_row(path: Path, epoch: int, step: int | None, metrics: Mapping[str, float]) -> None:
    """Append a row at once."""
    append_json_lines(path, [{"epoch": epoch, "step": step, **metrics}])


def drop_rows_after(path: Path, steps: int, rows: Sequence[Row]) -> None:
    """Drop the rows after a number of optimizer steps (-1: all), which a resumed run makes again.

    `rows`: those that are intact.
    """
    if path.exists():
        write_json_lines(path, [row for row in rows if steps_before(row) <= steps])


def steps_before(row: Row) -> int:
    """Return the number of optimizer steps that are done when a row is written."""
    return int(row["step"]) if is_evaluation_row(row) else int(row["step"]) + 1
