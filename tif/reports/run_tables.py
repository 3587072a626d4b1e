"""What a run shows at its end: tables of metrics and answers, and the exported model's card.

Called by `training.run` and `tif report`. Everything is read from the run folder.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tif.metrics.failures import find_nothing_to_forget
from tif.records.run_folder import evaluation_rows, read_records, read_steps
from tif.records.types import Evaluation, Record
from tif.reports import epochs_table
from tif.reports.columns import columns_of, escape_markdown, format_metric, markdown_table
from tif.reports.summary import (
    data_section,
    describe_times,
    eval_section,
    read_run_numbers,
    title_of,
)
from tif.utils.terminal import console, literal, print_line

MAX_CHARACTERS = 240  # of a question or an answer that is shown
# Sets whose generations are shown: the first of them that has some.
GENERATION_SETS = ("forget", "knowmem_forget", "verbmem_forget")


def show_run(folder: Path, summary: Mapping[str, Any] | None = None) -> None:
    """Print the tables of a run and the place of its folder.

    `summary`: what its summary.json will hold; None = it is read.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    numbers = read_run_numbers(folder, summary)
    rows = numbers.rows
    if rows:
        title = epochs_table.name_run(title_of(folder), data_section(folder), numbers)
        console.print(epochs_table.metrics_table(numbers, title, console.width))
        for line in epochs_table.list_notes(numbers):
            print_line(line, style="dim")
        first, last = (read_records(folder, rows[i]["epoch"]) for i in (0, -1))
        if first and last:
            console.print()
            console.print(generations_table(first, last, eval_section(folder).samples))
    steps = summary["steps"] if summary else read_steps(folder)
    console.print(f"optimizer steps: {steps_text(steps)}", style="dim")
    times = describe_times(folder)
    if times:
        print_line(f"time: {times}", style="dim")
    for line in list_next_steps(folder):
        console.print(line, soft_wrap=True)


def steps_text(steps: Mapping[str, int | None]) -> str:
    """Return the steps that were made, and of how many where a run ended early."""
    planned = steps["planned"]
    return f"{steps['made']:,} made, {'?' if planned is None else format(planned, ',')} planned"


def list_next_steps(folder: Path) -> list[str]:
    """Return what can be done with a run folder now; only what is in it is named."""
    steps = {
        "report.html": ("see it", f"open {shlex.quote(str(folder / 'report.html'))}"),
        "model": ("ask it", f"tif chat {shlex.quote(str(folder))}"),
        "model_best": ("the chosen epoch's model", f"{folder}/model_best"),
    }
    present = [step for name, step in steps.items() if (folder / name).exists()]
    return [f"{title}: {words}" for title, words in [("run folder", str(folder)), *present]]


def generations_table(first: Evaluation, last: Evaluation, count: int) -> Table:
    """Return `count` forget questions, each with its true answer and what the model answered."""
    title = "Forget questions, " + ("answers after" if first.epoch else "before and after")
    if not last.epoch:
        title = "Forget questions, before training"
    table = Table(title=title, show_header=False, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    first_records = _generated_records(first)
    after = {record.id: record.generated for record in _generated_records(last)}
    first_title = f"after {first.epoch}" if first.epoch else "before"  # eval.before_training=false
    last_title = f"after {last.epoch}" if last.epoch else "after"
    for i in spread_indices(len(first_records), count):
        record = first_records[i]
        if i:
            table.add_section()
        # Of a document, the question is what stands before the answer: its end says most.
        question = record.prompt.strip()
        if len(question) > MAX_CHARACTERS:
            question = "… " + question[-MAX_CHARACTERS:].strip()
        table.add_row("question", literal(question, "bold"))
        texts = {"truth": record.answer, first_title: record.generated}
        if last.epoch:
            texts[last_title] = after.get(record.id)
        for label, text in texts.items():
            shortened = (text or "").strip()
            if len(shortened) > MAX_CHARACTERS:
                shortened = shortened[:MAX_CHARACTERS].strip() + " …"
            table.add_row(label, literal(shortened))
    return table


def _generated_records(evaluation: Evaluation) -> tuple[Record, ...]:
    """Return the records of the first of GENERATION_SETS that has generations; or none."""
    for name in GENERATION_SETS:
        if name in evaluation.sets:
            records = evaluation.sets[name].records
            if records and records[0].generated is not None:
                return records
    return ()


def spread_indices(total: int, count: int) -> list[int]:
    """Return `count` indices spread evenly over `total` items, or all of fewer items."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def model_card(folder: Path) -> str:
    """Return the exported model's README.md: what made it, and its metrics at each epoch."""
    env = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    lines = [
        "---", "library_name: transformers", "tags: [machine-unlearning]", "---",
        f"# {escape_markdown(title_of(folder))}", "",
        f"Made by tif {env['tif']} (commit {env['commit']}) with the configuration in "
        f"`../config.yaml`. Optimizer steps: {steps_text(read_steps(folder))}.", "",
    ]  # fmt: skip
    evaluations = evaluation_rows(folder)
    if evaluations:
        metrics = list(columns_of(evaluations))
        table = [["epoch", *metrics]]
        for row in evaluations:
            values = [format_metric(metric, row.get(metric)) for metric in metrics]
            table.append([str(row["epoch"] or "before"), *values])
        lines.append(markdown_table(table).rstrip())
        # Also where nobody asked: a model that did not know the forget set was not unlearned.
        for failure in find_nothing_to_forget(evaluations[0]):
            lines += ["", f"Before training: {failure.line}"]
    return "\n".join(lines) + "\n"
