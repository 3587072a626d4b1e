"""The table of a run: a line for each metric, columns for its epochs and the retain model.

Called by run_tables.py. It fits the terminal at 80 columns and more: epochs in the middle are left
out where they are many.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from tif.data.benchmarks import describe_data
from tif.metrics.registry import find_metric
from tif.reports.columns import (
    columns_of,
    describe_groups,
    format_interval,
    format_metric,
    terminal_table,
)
from tif.reports.summary import DataKeys, RunNumbers
from tif.utils.terminal import literal

INTERVAL_TITLE = "95 % interval"
NO_RETAIN_NOTE = (
    "no retain model, so no forget quality: want UW to fall while GW and retain stay"
)
CHOSEN_NOTE = "the last epoch is the result; * the epoch that one half of the questions chose"
LAST_CHOSEN_NOTE = "* the last epoch, which is the result, is also the one that would be chosen"
NO_CHOICE_NOTE = (
    "no epoch is chosen: a set with one author, document or question has no halves"
)


Column = tuple[str, Mapping[str, str]]  # head, and cells by metric


def metrics_table(numbers: RunNumbers, title: str, width: int = 80) -> Table:
    """Return the table, as wide as `width` columns at most."""
    titles = columns_of(numbers.rows)
    columns = _list_columns(numbers, titles, width)
    shown_title = literal(title)
    if len(title) <= width:  # else it is wrapped; but never because the table is narrow
        shown_title.no_wrap, shown_title.overflow = True, "ignore"
    table = terminal_table(["metric", *(head for head, _ in columns)], shown_title, no_wrap=True)
    table.padding = (0, 0, 0, 0)
    for metric, metric_title in titles.items():
        table.add_row(metric_title, *(cells.get(metric, "-") for _, cells in columns))
    return table


def _list_columns(numbers: RunNumbers, titles: Mapping[str, str], width: int) -> list[Column]:
    """Return the columns beside the titles: as many epochs as fit, then all others."""
    best = numbers.best.epoch if numbers.best else None
    epochs = {int(row["epoch"]): _format_row(titles, row) for row in numbers.rows}
    others: list[Column] = []
    if numbers.best and numbers.has_best_column:
        others.append((f"half\n{best}*", _format_row(titles, numbers.best.row)))
    if numbers.retain:
        others.append(("retain\nmodel", _format_row(titles, numbers.retain)))
    cell_width = len("before")
    for cells in [*epochs.values(), *(cells for _, cells in others)]:
        cell_width = max(cell_width, *map(len, cells.values()))
    # A blank stands at both edges and between two columns.
    left = width - 2 - max(map(len, titles.values()), default=0)
    left -= (1 + cell_width) * len(others)
    known = [name for name in titles if name in numbers.intervals]
    if known:
        intervals = {name: format_interval(numbers.intervals[name], name) for name in known}
        others.insert(0, (INTERVAL_TITLE, intervals))
        left -= 1 + max(len(INTERVAL_TITLE), *map(len, intervals.values()))
    last = int(numbers.rows[-1]["epoch"])
    count = max(left // (1 + cell_width), 2)
    columns: list[Column] = []
    for epoch in choose_epochs(list(epochs), best, count):
        columns.append((_name_epoch(epoch, last, best), epochs[epoch]))
    return columns + others


def _format_row(metrics: Iterable[str], row: Mapping[str, Any]) -> dict[str, str]:
    return {metric: format_metric(metric, row.get(metric)) for metric in metrics}


def name_run(name: str, data: DataKeys, numbers: RunNumbers) -> str:
    """Return the table's title: the run, its data, and how long it was trained."""
    data_title = describe_data(data.benchmark, data.split)
    first, last = (int(numbers.rows[i]["epoch"]) for i in (0, -1))
    if last == 0:
        return f"{name}, {data_title}: before training"
    times = "after" if first else "before and after"  # eval.before_training=false
    return f"{name}, {data_title}: {times} {last} epoch{'s' if last != 1 else ''}"


def list_notes(numbers: RunNumbers) -> list[str]:
    """Return the lines below the table: what its columns mean and which metrics need more."""
    metrics = [find_metric(name) for name in columns_of(numbers.rows)]
    shown = [metric for metric in metrics if metric is not None]
    lines = [metric.note for metric in shown if metric.note]
    has_words = any(metric.name == "words/unwanted" for metric in shown)
    if has_words and not any(metric.needs_retain for metric in shown):
        lines.append(NO_RETAIN_NOTE)
    if numbers.intervals:
        lines.append(f"intervals: over {describe_groups(numbers.groups) or 'questions'}")
    if numbers.has_best_column and numbers.best:
        other = describe_groups(numbers.best.groups) or "not recorded"
        lines += [CHOSEN_NOTE, f"half: its numbers on the other half: {other}"]
    elif numbers.best:
        lines.append(LAST_CHOSEN_NOTE)
    elif any(sum(units.values()) == 1 for units in numbers.groups.values()):
        lines.append(NO_CHOICE_NOTE)
    return lines


def choose_epochs(epochs: Sequence[int], best: int | None, count: int) -> list[int]:
    """Return at most `count` epochs: the first, the last, the best, and others evenly between."""
    if len(epochs) <= count:
        return list(epochs)
    chosen = {epochs[0], epochs[-1]}
    if best is not None and best in epochs and count > 2:
        chosen.add(best)
    for parts in range(count - 1, 0, -1):
        spread = {epochs[i * (len(epochs) - 1) // parts] for i in range(parts + 1)}
        if len(spread | chosen) <= count:
            return sorted(spread | chosen)
    return sorted(chosen)


def _name_epoch(epoch: int, last: int, best: int | None) -> str:
    mark = "*" if epoch == best else ""
    if epoch == 0:
        return "before"
    return f"after{mark}" if epoch == last else f"{epoch}{mark}"
