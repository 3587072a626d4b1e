"""Pictures of a sweep that its file asks for: plots (a point a run) and paths (a line a run).

Called by sweep/run.py; figures.py draws them into the sweep's folder.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.records.run_folder import read_flat_config
from tif.reports.columns import QUALITY, column_title
from tif.reports.html.charts import Chart, Mark, Series, look_of_run, path
from tif.reports.html.comparison_data import mean_rows
from tif.reports.html.run_charts import list_guides
from tif.reports.sweep import View

WIDE = 50  # largest / smallest value from which an x axis of positive values is logarithmic


def draw_sweep(
    folders: Mapping[str, Sequence[Path]], results: Mapping[str, Any], view: View
) -> list[Chart]:
    """Return the charts of `view` that have a point.

    Args:
        folders: by run, those of its seeds; their configurations say what a key was.
        results: of sweep.collect_results.
        view: what is asked for.
    """
    charts = [_plot(name, axes, folders, results, view) for name, axes in view.plots.items()]
    charts += [_paths(name, axes, folders) for name, axes in view.paths.items()]
    return [chart for chart in charts if chart.series]


def _plot(
    name: str, axes: Sequence[str], folders: Mapping[str, Sequence[Path]],
    results: Mapping[str, Any], view: View,
) -> Chart:  # fmt: skip
    """Return a chart with a point for each run, mean over its seeds."""
    x, y = axes
    lines: dict[str, list[dict[str, Any]]] = {}
    for run, numbers in results["runs"].items():
        values = {metric: value["mean"] for metric, value in numbers[view.epoch].items()}
        if "/" not in x and folders[run]:
            values[x] = _read_number(folders[run][0], x)
        if values.get(x) is not None and values.get(y) is not None:
            line, value = _line_of(run, x, view)
            lines.setdefault(line, []).append({x: values[x], y: values[y], "name": value})
    series: list[Series] = []
    marks: list[Mark] = []
    for i, (line, points) in enumerate(lines.items()):
        look = look_of_run(i)
        ordered = points if "/" in x else sorted(points, key=lambda point: (point[x], point[y]))
        series.append(path(line, ordered, axes, look, ()))
        named = [point for point in points if point["name"]]
        marks += [Mark(point[x], point[y], point["name"], "filled", look[0]) for point in named]
    return _make_chart(name, x, y, f"{view.epoch} epoch", series, marks)


def _paths(name: str, axes: Sequence[str], folders: Mapping[str, Sequence[Path]]) -> Chart:
    """Return a chart with a line for each run: its epochs, mean over its seeds."""
    (x, y), series = axes, list[Series]()
    for run, seed_folders in folders.items():
        rows = [row for row in mean_rows(seed_folders) if x in row and y in row]
        if rows:
            labels = [f"{run}, epoch {row['epoch']}" for row in rows]
            series.append(path(run, rows, axes, look_of_run(len(series)), labels))
    return _make_chart(name, x, y, "epoch by epoch", series)


def _make_chart(
    name: str, x: str, y: str, epochs: str, series: Sequence[Series], marks: Sequence[Mark] = ()
) -> Chart:
    titles = column_title(x), column_title(y)
    caption = f"{titles[1]} against {titles[0]}, {epochs}, means over seeds"
    return Chart(
        name, name, caption, *titles, tuple(series), list_guides(x, y, {}), tuple(marks),
        x_log=_is_log(x, series), y_log=y == QUALITY,
    )  # fmt: skip


def _line_of(run: str, x: str, view: View) -> tuple[str, str]:
    """Return the name of the line that joins a run with others, and what names its point.

    A line holds the runs that differ in `x` alone; where that is a metric, in the last key of the
    grid, whose value then names the point.
    """
    entry, grid = view.entries.get(run, (run, {}))
    joined = x if "/" not in x else next(reversed(list(grid)), "")
    others = [f"{key.split('.')[-1]}={value}" for key, value in grid.items() if key != joined]
    if "/" not in x and x not in grid:  # the runs' own words vary it
        return ", ".join(others) or "runs", ""
    line = ", ".join([entry, *others] if entry else others)
    return line or "runs", f"{grid[joined]}" if "/" in x and joined else ""


def _is_log(x: str, series: Sequence[Series]) -> bool:
    """Return whether an x axis is logarithmic: of a p-value, or a key with values far apart."""
    if "/" in x:
        return x == QUALITY
    xs = list(itertools.chain(*(line.x for line in series)))
    return bool(xs) and min(xs) > 0 and max(xs) / min(xs) >= WIDE


def _read_number(folder: Path, key: str) -> float | None:
    """Return the value that a run's configuration has for a dotted key; None if it is no number."""
    value = read_flat_config(folder).get(key)
    return float(value) if isinstance(value, int | float) else None
