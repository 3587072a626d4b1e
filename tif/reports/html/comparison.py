"""The report of several runs: table, frontier, what differs, and small multiples of each.

Called by `tif report` and at the end of a sweep.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.reports import sweep
from tif.reports.columns import QUALITY, list_main_columns, list_trade_offs, title_of
from tif.reports.html import charts as parts
from tif.reports.html.charts import (
    Chart,
    Mark,
    Series,
    line,
    look_of_run,
    name_epoch,
    upper_first,
)
from tif.reports.html.comparison_data import Group, collect, find_differences, group_runs
from tif.reports.html.page import write_page
from tif.reports.html.run_charts import list_guides
from tif.reports.html.run_report import FILE_NAME
from tif.utils.terminal import escape_controls

MAX_PATHS = 8  # runs whose epochs are drawn; of more, the last epoch alone
MAX_NAMES = 16  # runs whose names stand beside their last epochs


def write_comparison(folders: Sequence[Path], out: Path, title: str) -> list[Chart]:
    """Write the report of several runs to the file `out`; return its charts.

    Raises:
        DamagedFile: If a file of a folder cannot be read; one line with what to delete.
    """
    groups = group_runs(folders)
    results = collect(groups)
    ranked = [name for name, _ in sweep.rank(results)]
    groups.sort(key=lambda group: ranked.index(group.name))
    frontier, words = frontier_chart(groups, results), word_charts(groups)
    keys, values = find_differences(groups)
    leaders = find_leaders(results)
    last = results["runs"][leaders[0]]["last"] if leaders else {}
    page = {
        "title": escape_controls(title),
        "count": sum(len(group.folders) for group in groups),
        "leaders": leaders,
        "last": last,
        "metrics": [name for name in list_main_columns() if name in last][:3],
        "table": sweep.full_table(results),
        "models": list(sweep.label_models(results).values()),
        "links": {group.name: _link(group, out) for group in groups},
        "frontier": frontier,
        "words": words,
        "keys": keys,
        "values": list(zip((group.name for group in groups), values, strict=True)),
    }
    charts = [frontier, *words] if frontier else words
    write_page(out, "comparison.html", page, charts)
    return charts


def find_leaders(results: Mapping[str, Any]) -> list[str]:
    """Return the runs with the highest score: several where the deviation hides which it is.

    A run shares the lead where its mean score is as high to three digits, or no further below the
    highest than the larger of the two deviations over seeds. [] where nothing ranks the runs.
    """
    leaders, highest = [], None
    for name, run in sweep.rank(results):
        score = run["last"].get(sweep.SCORE)
        highest = highest or score
        if score and highest:
            deviation = max(highest["sd"] or 0.0, score["sd"] or 0.0, 5e-4)
            leaders += [name] if highest["mean"] - score["mean"] <= deviation else []
    return leaders


def frontier_chart(groups: Sequence[Group], results: Mapping[str, Any]) -> Chart | None:
    """Return forgetting against usefulness: each run over its epochs, the last one marked."""
    for axes in list_trade_offs():
        shown = []
        for group in groups:
            last = results["runs"][group.name]["last"]
            if set(axes) <= last.keys() | set().union(*group.rows):
                shown.append(group)
        if shown:
            return _draw_frontier(shown, results, axes)
    return None


def _draw_frontier(
    groups: Sequence[Group], results: Mapping[str, Any], axes: tuple[str, str]
) -> Chart:
    """Return the chart of runs that have both metrics.

    A few runs are drawn over their epochs, each ending in a star; of more, the last epoch alone.
    """
    series: list[Series] = []
    marks: list[Mark] = []
    has_paths = len(groups) <= MAX_PATHS
    for i, group in enumerate(groups):
        look = look_of_run(i)
        last = results["runs"][group.name]["last"]
        end = None
        if set(axes) <= last.keys():
            end = {metric: last[metric]["mean"] for metric in axes}
        if has_paths:
            rows = [row for row in group.rows if set(axes) <= row.keys()]
            labels = [f"{group.name}, {name_epoch(row['epoch'])}" for row in rows]
            if rows:
                series.append(parts.path(group.name, rows, axes, look, labels))
        elif end:
            series.append(parts.path(group.name, [end], axes, look, [f"{group.name}, last epoch"]))
        if end and len(groups) <= MAX_NAMES:
            shape = "star" if has_paths else "filled"
            marks.append(Mark(end[axes[0]], end[axes[1]], group.name, shape, look[0]))
    titles = title_of(axes[0]), title_of(axes[1])
    ending = "star: last epoch" if has_paths else "last epochs"
    caption = f"{upper_first(titles[1])} against {titles[0]}, means over seeds; {ending}."
    label = sweep.label_models(results)["retain_model"]
    guides = list_guides(*axes, results["retain_model"], label)
    return Chart("frontier", "Forgetting against usefulness", caption, *titles, tuple(series),
        guides, tuple(marks), y_log=axes[1] == QUALITY)  # fmt: skip


def word_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return a small chart of unwanted and general words for each run that knows them."""
    charts = []
    for i, group in enumerate(groups):
        series = parts.present([
            line("UW", group.rows, "words/unwanted", "uw"),
            line("GW", group.rows, "words/general", "gw"),
        ])  # fmt: skip
        if series and len(group.rows) > 1:
            name = f"words-{i}"
            chart = Chart(name, group.name, "", "epoch", "", series, y_range=(0.0, 1.0), small=True)
            charts.append(chart)
    return charts


def _link(group: Group, out: Path) -> str:
    """Return where the first run's own report is, from the folder of `out`; "" where it is not."""
    report = group.folders[0] / FILE_NAME
    return os.path.relpath(report, out.parent) if report.exists() else ""


def default_place(folders: Sequence[Path]) -> Path:
    """Return report.html in the folder that holds all these runs."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / FILE_NAME
