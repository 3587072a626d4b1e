"""The report of several runs: table, frontier, what differs, and small multiples of each.

Called by `tif report` and at the end of a sweep.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.reports import sweep
from tif.reports.columns import list_main_columns, list_trade_offs, title_of
from tif.reports.html.charts import (
    Chart,
    Mark,
    Series,
    line,
    look_of_run,
    name_epoch,
    present,
    upper_first,
)
from tif.reports.html.comparison_data import (
    Group,
    collect,
    find_differences,
    group_runs,
)
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
    table = sweep.full_table(results)
    links = {group.name: _link(group, out) for group in groups}
    page = {
        "title": escape_controls(title),
        **_find_best(groups, results),
        "table": table,
        "models": list(sweep.label_models(results).values()),
        "links": links,
        "frontier": frontier,
        "words": words,
        "keys": keys,
        "values": list(zip((group.name for group in groups), values, strict=True)),
    }
    charts = [frontier, *words] if frontier else words
    write_page(out, "comparison.html", page, charts)
    return charts


def _find_best(groups: Sequence[Group], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many runs there are, and the numbers of those that have the highest score."""
    leaders = find_leaders(results)
    last = results["runs"][leaders[0]]["last"] if leaders else {}
    return {
        "count": sum(len(group.folders) for group in groups),
        "leaders": leaders,
        "last": last,
        "metrics": [name for name in list_main_columns() if name in last][:3],
    }


def find_leaders(results: Mapping[str, Any]) -> list[str]:
    """Return the runs with the highest score: several where the deviation hides which it is.

    A run shares the lead where its mean score is as high to three digits, or no further below the
    highest than the larger of the two deviations over seeds. [] where nothing ranks the runs.
    """
    scores = {}
    for name, run in sweep.rank(results):
        if sweep.SCORE in run["last"]:
            scores[name] = run["last"][sweep.SCORE]
    leaders: list[str] = []
    for name, score in scores.items():
        highest = scores[leaders[0]] if leaders else score
        deviation = max(highest["sd"] or 0.0, score["sd"] or 0.0, 5e-4)
        if highest["mean"] - score["mean"] <= deviation:
            leaders.append(name)
    return leaders


def frontier_chart(groups: Sequence[Group], results: Mapping[str, Any]) -> Chart | None:
    """Return forgetting against usefulness: each run over its epochs, the last one marked."""
    for x, y in list_trade_offs():
        x_title, y_title = title_of(x), title_of(y)
        runs = results["runs"]
        shown = []
        for group in groups:
            if {x, y} <= runs[group.name]["last"].keys() | set().union(*group.rows):
                shown.append(group)
        if not shown:
            continue
        series, marks = [], []
        for i, group in enumerate(shown):
            role, style = look_of_run(i)
            rows = [row for row in group.rows if x in row and y in row]
            last = runs[group.name]["last"]
            labels = tuple(f"{group.name}, {name_epoch(row['epoch'])}" for row in rows)
            if len(shown) > MAX_PATHS:
                rows = [{x: last[x]["mean"], y: last[y]["mean"]}] if x in last else []
                labels = (f"{group.name}, last epoch",) * len(rows)
            xs, ys = tuple(row[x] for row in rows), tuple(row[y] for row in rows)
            if rows:
                series.append(Series(group.name, xs, ys, role, style, labels))
            if x in last and y in last and len(shown) <= MAX_NAMES:
                point, has_path = (last[x]["mean"], last[y]["mean"]), len(shown) <= MAX_PATHS
                marks.append(Mark(*point, group.name, "star" if has_path else "filled", role))
        label = sweep.label_models(results)["retain_model"]
        guides = list_guides(x, y, results["retain_model"], label)
        ending = "star: last epoch" if len(shown) <= MAX_PATHS else "last epochs"
        caption = f"{upper_first(y_title)} against {x_title}, means over seeds; {ending}."
        return Chart("frontier", "Forgetting against usefulness", caption, x_title, y_title,
            tuple(series), guides, tuple(marks), y_log=y == sweep.QUALITY)  # fmt: skip
    return None


def word_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return a small chart of unwanted and general words for each run that knows them."""
    charts = []
    for i, group in enumerate(groups):
        series = present([
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
