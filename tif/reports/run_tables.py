"""What a run shows at its end: tables of metrics and answers, and the exported model's card.

Called by `training.run` and `tif report`. Everything is read from the run folder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tif.records.types import Evaluation
from tif.reports.columns import columns_of, escape_markdown, format_interval, format_number
from tif.reports.run_folder import (
    eval_section,
    evaluation_rows,
    read_intervals,
    read_records,
    read_steps,
    retain_row,
)
from tif.utils.terminal import console, literal

# Sets whose generations are shown: the first of them that the evaluation has.
GENERATION_SETS = ("forget", "knowmem_forget", "verbmem_forget")


def show_run(folder: Path, summary: Mapping[str, Any] | None = None) -> None:
    """Print the tables of a run and the place of its folder.

    `summary`: what its summary.json will hold; None = it is read.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    evaluations = evaluation_rows(folder)
    if evaluations:
        console.print(metrics_table(evaluations, retain_row(folder)))
        line = intervals_line(summary["intervals"] if summary else read_intervals(folder))
        if line:
            console.print(line)
        first, last = (read_records(folder, evaluations[i]["epoch"]) for i in (0, -1))
        if first and last:
            console.print(generations_table(first, last, eval_section(folder).samples))
    steps = summary["steps"] if summary else read_steps(folder)
    console.print(f"optimizer steps: {steps_text(steps)}")
    console.print(f"run folder: {folder}", soft_wrap=True)


def steps_text(steps: Mapping[str, int | None]) -> str:
    """Return the steps that were made, and of how many where a run ended early."""
    planned = steps["planned"]
    return f"{steps['made']:,} made, {'?' if planned is None else format(planned, ',')} planned"


def metrics_table(evaluations: Sequence[dict[str, Any]], retain: dict[str, Any]) -> Table:
    """Return a table with a row for each evaluation, and one for the retain model if not empty."""
    compared = "Forget quality against the retain model"
    table = Table(title=f"{compared}, utility over retain set, real authors, world facts")
    table.add_column("epoch", min_width=len("before"))
    columns = columns_of(evaluations)
    for title in columns.values():
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    for row in evaluations:
        label = "before" if row["epoch"] == 0 else str(row["epoch"])
        table.add_row(label, *(format_number(row.get(metric)) for metric in columns))
    if retain:
        table.add_section()
        table.add_row("retain model", *(format_number(retain.get(metric)) for metric in columns))
    return table


def intervals_line(intervals: Mapping[str, Sequence[float]]) -> str:
    """Return the last evaluation's bootstrap intervals; "" where there are none."""
    parts = []
    for metric, title in columns_of([intervals]).items():
        parts.append(f"{title.rstrip(' ↑↓→0')} {format_interval(intervals[metric])}")
    title = "95 % intervals of the last epoch, over questions"
    return f"{title}: {', '.join(parts)}" if parts else ""


def generations_table(first: Evaluation, last: Evaluation, count: int) -> Table:
    """Return a table of `count` questions, true answers and the model's answers at two epochs."""
    table = Table(title="Forget questions, before and after", show_lines=True)
    for title in ("question", "true answer", f"epoch {first.epoch}", f"epoch {last.epoch}"):
        table.add_column(title, ratio=1)
    both = [name for name in GENERATION_SETS if name in first.sets and name in last.sets]
    before = first.sets[both[0]].records if both else ()
    after = {record.id: record.generated for record in last.sets[both[0]].records} if both else {}
    for i in spread_indices(len(before), count):
        record = before[i]
        texts = (record.prompt, record.answer, record.generated, after.get(record.id))
        table.add_row(*(literal(text or "") for text in texts))
    return table


def spread_indices(total: int, count: int) -> list[int]:
    """Return `count` indices spread evenly over `total` items, or all of fewer items."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def model_card(folder: Path) -> str:
    """Return the exported model's README.md: what made it, and its metrics at each epoch."""
    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    lines = [
        "---", "library_name: transformers", "tags: [machine-unlearning]", "---",
        f"# {escape_markdown(folder.name)}", "",
        f"Made by tif {env['tif']} (commit {env['commit']}) with the configuration in "
        f"`../config.yaml`. Optimizer steps: {steps_text(read_steps(folder))}.", "",
    ]  # fmt: skip
    evaluations = evaluation_rows(folder)
    if evaluations:
        metrics = list(columns_of(evaluations))
        lines.append("| epoch | " + " | ".join(metrics) + " |")
        lines.append("|---" * (len(metrics) + 1) + "|")
        for row in evaluations:
            values = " | ".join(format_number(row.get(metric)) for metric in metrics)
            lines.append(f"| {row['epoch']} | {values} |")
    return "\n".join(lines) + "\n"
