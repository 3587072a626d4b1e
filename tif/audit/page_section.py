"""The audit's part of a run's report; shown where `tif audit` left its results in the folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.audit import tables
from tif.audit.keys import FOLDER
from tif.records.json_values import load_json
from tif.reports.html.charts import Chart
from tif.reports.html.page import typeset
from tif.reports.html.run_report import FILE_NAME, write_run_report
from tif.utils.files import DamagedFile


def read_audit_section(folder: Path) -> dict[str, Any] | None:
    """Return verdicts, head, rows, note and charts of a run's audit; None where there is none.

    The rows of headlines have the kind "best".

    Raises:
        DamagedFile: If its file cannot be read; one line with what to delete.
    """
    path = folder / FOLDER / tables.FILE
    if not path.exists():
        return None
    try:
        return _make_section(load_json(path))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"{path}: no results of an audit ({error!r:.80})"
        raise DamagedFile(f"{problem}; delete {path} to see what is left") from None


def _make_section(content: Mapping[str, Any]) -> dict[str, Any]:
    rows, curves, charts = [], [], []
    for name, attack in content["attacks"].items():
        part = _arrange_curves(name, attack)
        curves += [part] if part["charts"] else []
        charts += [*part["charts"], *part["others"]]
        for i, line in enumerate(tables.audit_lines(content, name)):
            cells = [{"text": typeset(text), "note": ""} for text in line]
            rows.append({"kind": "" if i else "best", "cells": cells})
    return {
        "verdicts": [typeset(verdict) for verdict in tables.list_verdicts(content).values()],
        "head": list(tables.HEADER), "rows": rows, "curves": curves, "charts": charts,
        "note": tables.describe_units(content),
    }  # fmt: skip


def _arrange_curves(name: str, attack: Mapping[str, Any]) -> dict[str, Any]:
    """Return an attack's heading, the charts of the headline's measure, and the other charts."""
    charts = tables.curve_charts(name, attack)
    if len(charts) == 1:  # its heading is enough
        chart = dataclasses.replace(charts[0], title=f"{name}: {charts[0].title}")
        return {"title": "", "charts": [chart], "others": []}
    measure = attack["headline"].rpartition(", ")[2]
    main, others = [], []
    for chart in charts:
        title = chart.title.removesuffix(f", {measure}")  # which the heading says once
        if title == chart.title:
            others.append(chart)
        else:
            main.append(dataclasses.replace(chart, title=title))
    if not main:
        return {"title": name, "charts": charts, "others": []}
    return {"title": f"{name}: {measure}", "charts": main, "others": others}


def write_report(folder: Path, out: Path | None = None) -> tuple[Path, list[Chart]]:
    """Write the report of a run with its audit's part; return its path and its charts.

    Raises:
        DamagedFile: If a file of the folder cannot be read; one line with what to delete.
    """
    return write_run_report(folder, out=out, audit=read_audit_section(folder))


def refresh_report(folder: Path) -> None:
    """Write a run's report again where there is one; to be called after an audit."""
    if (folder / FILE_NAME).is_file():
        write_report(folder)
