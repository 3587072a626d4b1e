"""The report of one run: `report.html` in its folder.

Called by `training/train` at the end of a run and by `audit/page_section`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.metrics.unread import AS_UNREAD
from tif.reports import columns
from tif.reports.html import run_charts
from tif.reports.html.charts import ALIKE, Chart, upper_first
from tif.reports.html.page import join_arrow, pretty, typeset, write_page
from tif.reports.html.run_data import RunData, read_run
from tif.reports.html.samples import LARGEST, SMALLEST, STEPS
from tif.reports.summary import describe_times, title_of
from tif.utils.terminal import escape_controls

FILE_NAME = "report.html"
TILES = 4  # key figures at the top, beside forget/as_unread


def write_run_report(
    folder: Path, summary: Mapping[str, Any] | None = None, out: Path | None = None,
    audit: Mapping[str, Any] | None = None,
) -> tuple[Path, list[Chart]]:
    """Write the report of a run; return its path and its charts.

    Args:
        folder: of the run.
        summary: content of its summary.json, where that is not written yet.
        out: the file; None = report.html in the folder.
        audit: the part that `tif.audit.page_section` makes of the run's audit.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    run = read_run(folder, summary)
    path = out or folder / FILE_NAME
    charts, losses = run_charts.list_charts(run), run_charts.loss_charts(run)
    samples = _samples(run)
    values = _values(run) | {"charts": charts, "loss_charts": losses, "audit": audit}
    all_charts = [*charts, *(audit["charts"] if audit else ()), *losses]
    write_page(path, "run.html", values, all_charts, samples)
    return path, all_charts


def _values(run: RunData) -> dict[str, Any]:
    head, rows = epoch_table(run)
    config_path = run.folder / "config.yaml"
    return {
        "title": escape_controls(title_of(run.folder)),
        "run": run,
        "times": describe_times(run.folder),
        "warnings": warnings(run),
        **_find_changes(run),
        "tiles": tiles(run),
        "head": head,
        "rows": rows,
        "has_intervals": bool(run.intervals or run.start_intervals),
        "groups": columns.describe_groups(run.groups) or "questions",
        "config_text": config_path.read_text(encoding="utf-8") if config_path.exists() else "",
        "env": json.dumps(run.env, indent=1) if run.env else "",
    }


def _find_changes(run: RunData) -> dict[str, str | None]:
    """Return the metrics whose change the first sentences tell: what was forgotten, what stays."""
    start, end = (run.rows[0], run.rows[-1]) if run.rows else ({}, {})
    pairs = columns.list_trade_offs()
    falling = [name for _, name in pairs if columns.column_title(name).endswith("↓")]
    forgotten = [name for name in ("words/unwanted", *falling) if name in start and name in end]
    useful = [name for name, _ in pairs if start.get(name) and end.get(name) is not None]
    return {"forgotten": next(iter(forgotten), None), "useful": next(iter(useful), None)}


def warnings(run: RunData) -> list[tuple[str, str]]:
    """Return (name, line) of what a reader should know before believing the numbers."""
    lines = []
    for name, line, epochs in run.failures():
        last = bool(run.rows) and run.rows[-1]["epoch"] in epochs
        when = "at the end" if last else f"until epoch {epochs[-1]}, not at the end"
        if epochs[-1] == 0:
            when = "before training"
        lines.append((name.replace("_", "-"), typeset(f"{line} ({when})")))
    wanted = run.section("trainer").get("max_epochs")
    if run.rows and isinstance(wanted, int) and run.rows[-1]["epoch"] < wanted:
        lines.append(("unfinished", f"epoch {run.rows[-1]['epoch']} of {wanted} is the last here"))
    return lines


def _samples(run: RunData) -> dict[str, Any] | None:
    if not run.browser.models:
        return None
    last = str(run.rows[-1]["epoch"])
    important = [str(run.rows[0]["epoch"]), last]
    if run.best_epoch is not None:
        important.append(str(run.best_epoch))
    return run.browser.as_json(important) | {"scale": [SMALLEST, LARGEST, STEPS]}


def epoch_table(run: RunData) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the head and the rows of the table of epochs, with intervals and the retain model."""
    if not run.rows:
        return [], []
    shown, last = columns.columns_of(run.rows), run.rows[-1]["epoch"]
    intervals = {run.rows[0]["epoch"]: run.start_intervals, last: run.intervals}
    rows = []
    for row in run.rows:
        epoch = row["epoch"]
        name = "before" if epoch == 0 else str(epoch)
        label = {"text": name, "note": "chosen" * (epoch == run.best_epoch)}
        cells = _cells(row, shown, intervals.get(epoch, {}))
        rows.append({"kind": "best" if epoch == last else "", "cells": [label, *cells]})
    if run.best and run.has_best_column:
        label = {"text": str(run.best.epoch), "note": "other half"}
        cells = _cells(run.best.row, shown, run.best.intervals)
        rows.append({"kind": "best", "cells": [label, *cells]})
    if run.retain:
        label = {"text": "retain model", "note": ""}
        rows.append({"kind": "retain", "cells": [label, *_cells(run.retain, shown, {})]})
    return ["epoch", *map(join_arrow, shown.values())], rows


def _cells(
    row: Mapping[str, Any], metrics: Iterable[str], intervals: Mapping[str, Sequence[float]]
) -> list[dict[str, str]]:
    """Return the numbers of a row, each with its interval."""
    cells = []
    for metric in metrics:
        ends = [pretty(end, metric) for end in intervals.get(metric) or ()]
        cells.append({"text": pretty(row.get(metric), metric), "note": " – ".join(ends)})
    return cells


def tiles(run: RunData) -> list[dict[str, Any]]:
    """Return the key figures: after, before, and the retain model's value."""
    if not run.rows:
        return []
    start, end = run.rows[0], run.rows[-1]
    candidates = ["words/unwanted", "words/general"]
    for usefulness, forgetting in columns.list_trade_offs():
        candidates += [forgetting, usefulness]
    known = [metric for metric in dict.fromkeys(candidates) if end.get(metric) is not None]
    first = [AS_UNREAD] if end.get(AS_UNREAD) is not None else []
    shown: list[dict[str, Any]] = []
    for metric in [*first, *known[:TILES]]:
        retain = run.retain.get(metric)
        note = f"retain model {pretty(retain, metric)}" if retain is not None else ""
        if metric == "forget/quality":
            note = f"{'not ' * (end[metric] >= ALIKE)}told from a retain model (limit {ALIKE})"
        has_start = len(run.rows) > 1 and start.get(metric) is not None
        shown.append({
            "label": upper_first(columns.describe_metric(metric)),
            "role": columns.role_of(metric),
            "after": pretty(end[metric], metric),
            "before": pretty(start[metric], metric) if has_start else "",
            "note": note,
            "spark": _spark([row[metric] for row in run.rows if row.get(metric) is not None]),
        })  # fmt: skip
    return shown


def _spark(values: list[float]) -> str:
    """Return the points of a line over a box of 100 by 30; "" for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(0.0, *values), max(values)
    height = (high - low) or 1.0
    points = []
    for i, value in enumerate(values):
        x, y = 100 * i / (len(values) - 1), 28 - 26 * (value - low) / height
        points.append(f"{x:.1f},{y:.1f}")
    return " ".join(points)
