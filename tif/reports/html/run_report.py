"""The report of one run: `report.html` in its folder.

Called by `training/train` at the end of a run and by `audit/page_section`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tif.reports import columns
from tif.reports.html import run_charts, words
from tif.reports.html.charts import Chart, upper_first
from tif.reports.html.packing import LARGEST, SMALLEST, STEPS
from tif.reports.html.page import write_page
from tif.reports.html.recipe import facts, recipe
from tif.reports.html.run_data import RunData, read_run
from tif.reports.html.samples import RETAIN
from tif.reports.run_folder import title_of
from tif.reports.summary import Best
from tif.utils.terminal import escape_controls

FILE_NAME = "report.html"
TILES = 4  # key figures at the top


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
    charts, losses = _charts(run), run_charts.loss_charts(run)
    samples = _samples(run)
    values = _values(run) | {"charts": charts, "loss_charts": losses, "audit": audit}
    values["sections"] = _sections(values, samples)
    values |= _browser_values(run, samples)
    all_charts = [*charts, *(audit["charts"] if audit else ()), *losses]
    write_page(path, "run.html", values, all_charts, samples)
    return path, all_charts


def _charts(run: RunData) -> list[Chart]:
    charts = (
        run_charts.word_chart(run),
        run_charts.forgetting_chart(run),
        run_charts.ratio_chart(run),
        run_charts.extraction_chart(run),
    )
    return [chart for chart in charts if chart is not None]


def _values(run: RunData) -> dict[str, Any]:
    head, rows = epoch_table(run)
    config_path = run.folder / "config.yaml"
    return {
        "title": escape_controls(title_of(run.folder)),
        "sentences": words.summary_sentences(run),
        "warnings": words.warnings(run),
        "facts": facts(run),
        "tiles": tiles(run),
        "head": head,
        "rows": rows,
        "epoch_note": " ".join(words.epoch_sentences(run)),
        "epoch_sentences": words.epoch_sentences(run),
        "has_intervals": any(run.intervals.values()),
        "groups": columns.describe_groups(run.groups) or "questions",
        "recipe": recipe(run),
        "config_text": config_path.read_text(encoding="utf-8") if config_path.exists() else "",
        "env": json.dumps(run.env, indent=1) if run.env else "",
    }


def _sections(values: Mapping[str, Any], samples: Any) -> list[tuple[str, str]]:
    """Return (id, name) of the sections that the page has."""
    sections = []
    for key, id, name in (("charts", "curves", "Curves"), ("rows", "epochs", "Epochs")):
        if values[key]:
            sections.append((id, name))
    if samples:
        sections.append(("samples-section", "Samples"))
    if values["audit"]:
        sections.append(("audit", "Audit"))
    if values["loss_charts"]:
        sections.append(("loss", "Loss"))
    return [*sections, ("recipe", "Recipe")]


def _samples(run: RunData) -> dict[str, Any] | None:
    if not run.browser.models:
        return None
    last = str(run.rows[-1]["epoch"])
    important = [str(run.rows[0]["epoch"]), last]
    if run.best_epoch is not None:
        important.append(str(run.best_epoch))
    return run.browser.as_json(important) | {"scale": [SMALLEST, LARGEST, STEPS]}


def _browser_values(run: RunData, samples: Mapping[str, Any] | None) -> dict[str, Any]:
    if samples is None:
        return {}
    keys = [model["key"] for model in samples["models"]]
    return {
        "counts": [(part["name"], len(part["samples"])) for part in samples["sets"]],
        "has_before": keys[0] == "0",
        "has_retain": RETAIN in keys,
        "has_words": run.unwanted_share is not None,
        "last_epoch_place": len([key for key in keys if key != RETAIN]) - 1,
        "sample_notes": samples["notes"],
    }


def epoch_table(run: RunData) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the head and the rows of the table of epochs, with intervals and the retain model."""
    shown = columns.columns_of(run.rows)
    rows = []
    for row in run.rows:
        epoch = row["epoch"]
        is_chosen = epoch == run.best_epoch
        cells = [{"text": "before" if epoch == 0 else str(epoch), "note": "chosen" * is_chosen}]
        intervals = run.intervals.get(epoch, {})
        for metric in shown:
            pair = intervals.get(metric)
            ends = [words.pretty(end, metric) for end in pair or ()]
            cells.append({"text": words.pretty(row.get(metric), metric), "note": " – ".join(ends)})
        rows.append({"kind": "best" if epoch == run.rows[-1]["epoch"] else "", "cells": cells})
    if run.best and run.rows and run.best.epoch != run.rows[-1]["epoch"]:
        rows.append({"kind": "best", "cells": _best_cells(run.best, shown)})
    if run.retain:
        cells = [{"text": "retain model", "note": ""}]
        for metric in shown:
            cells.append({"text": words.pretty(run.retain.get(metric), metric), "note": ""})
        rows.append({"kind": "retain", "cells": cells})
    return ["epoch", *map(words.join_arrow, shown.values())], rows if run.rows else []


def _best_cells(best: Best, metrics: Iterable[str]) -> list[dict[str, str]]:
    """Return the chosen epoch's numbers on the half of the questions that did not choose it."""
    cells = [{"text": str(best.epoch), "note": "other half"}]
    for metric in metrics:
        ends = [words.pretty(end, metric) for end in best.intervals.get(metric) or ()]
        value = words.pretty(best.row.get(metric), metric)
        cells.append({"text": value, "note": " – ".join(ends)})
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
    shown: list[dict[str, Any]] = []
    for metric in known[:TILES]:
        retain = run.retain.get(metric)
        note = f"retain model {words.pretty(retain, metric)}" if retain is not None else ""
        if metric == "forget/quality":
            passes = end[metric] >= words.ALIKE
            note = f"{'not ' if passes else ''}told from a retain model (limit {words.ALIKE})"
        has_start = len(run.rows) > 1 and start.get(metric) is not None
        shown.append({
            "label": upper_first(columns.describe_metric(metric)),
            "role": columns.role_of(metric),
            "after": words.pretty(end[metric], metric),
            "before": words.pretty(start[metric], metric) if has_start else "",
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
