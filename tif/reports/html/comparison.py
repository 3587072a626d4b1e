"""The report of several runs: table, frontier, what differs, and small multiples of each.

Called by `tif report` and at the end of a sweep.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.reports import sweep
from tif.reports.columns import describe_metric, list_main_columns, list_trade_offs, title_of
from tif.reports.html.charts import (
    Chart,
    Guide,
    Mark,
    Series,
    line,
    look_of_run,
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
from tif.reports.html.run_charts import ALIKE
from tif.reports.html.run_report import FILE_NAME
from tif.reports.html.words import Number, Sentence, join_arrow, pretty, pretty_power
from tif.utils.terminal import escape_controls

MAX_PATHS = 8  # runs whose epochs are drawn; of more, the last epoch alone
MAX_LEADERS = 4  # whose names the first sentence has
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
    sections = [
        ("table", "Table", True),
        ("curves", "Frontier", frontier),
        ("words", "Words", words),
        ("differences", "Differences", keys),
    ]
    page = {
        "title": escape_controls(title),
        "sentences": comparison_sentences(groups, results),
        "head": [join_arrow(cell) for cell in table[0]],
        "lines": [[line[0], *map(_pretty_cell, line[1:])] for line in table[1:]],
        "models": list(sweep.label_models(results).values()),
        "links": links,
        "frontier": frontier,
        "words": words,
        "keys": keys,
        "values": list(zip((group.name for group in groups), values, strict=True)),
        "sections": [(id, name) for id, name, content in sections if content],
    }
    charts = [frontier, *words] if frontier else words
    write_page(out, "comparison.html", page, charts)
    return charts


def comparison_sentences(groups: Sequence[Group], results: Mapping[str, Any]) -> list[Sentence]:
    """Return how many runs there are, and which one is the best by its score."""
    count = sum(len(group.folders) for group in groups)
    opening: Sentence = [Number(str(len(groups))), " configurations, "]
    opening += [Number(str(count)), " runs. "]
    leaders = find_leaders(results)
    if not leaders:
        return [[*opening, "None has both numbers that rank runs."]]
    last = results["runs"][leaders[0]]["last"]
    score = Number(pretty(last[sweep.SCORE]["mean"]))
    if len(leaders) > 1:
        opening += ["There is no single best one: the highest score, ", score, ", is shared "]
        opening += ["(within the deviation over seeds) by "]
        return [[*opening, *_join_names(leaders), "."]]
    pieces: Sentence = ["The last epochs of ", Number(leaders[0])]
    pieces += [" have the highest score, ", score]
    for metric in [name for name in list_main_columns() if name in last][:3]:
        pieces += [f", {describe_metric(metric)} ", Number(pretty(last[metric]["mean"], metric))]
    return [[*opening, *pieces, "."]]


def _join_names(names: Sequence[str]) -> Sentence:
    """Return "a, b and c"; of many names their number."""
    if len(names) > MAX_LEADERS:
        return [Number(str(len(names))), " of them, the upper lines of the table"]
    pieces: Sentence = []
    for name in names[:-1]:
        pieces += [Number(name), ", "]
    return [*pieces[:-1], " and ", Number(names[-1])]


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
        shown = [g for g in groups if {x, y} <= runs[g.name]["last"].keys() | _metrics(g)]
        if not shown:
            continue
        series, marks = [], []
        for i, group in enumerate(shown):
            role, style = look_of_run(i)
            rows = [row for row in group.rows if x in row and y in row]
            last = runs[group.name]["last"]
            if len(shown) > MAX_PATHS:
                rows = [{"epoch": 0, x: last[x]["mean"], y: last[y]["mean"]}] if x in last else []
            labels = tuple(f"{group.name}, {_epoch_name(row, len(shown))}" for row in rows)
            xs, ys = tuple(row[x] for row in rows), tuple(row[y] for row in rows)
            if rows:
                series.append(Series(group.name, xs, ys, role, style, labels))
            if x in last and y in last and len(shown) <= MAX_NAMES:
                point, has_path = (last[x]["mean"], last[y]["mean"]), len(shown) <= MAX_PATHS
                marks.append(Mark(*point, group.name, "star" if has_path else "filled", role))
        guides = _guides(results, x, y)
        ending = "star: last epoch" if len(shown) <= MAX_PATHS else "last epochs"
        caption = f"{upper_first(y_title)} against {x_title}, means over seeds; {ending}."
        return Chart("frontier", "Forgetting against usefulness", caption, x_title, y_title,
            tuple(series), guides, tuple(marks), y_log=y == "forget/quality")  # fmt: skip
    return None


def _metrics(group: Group) -> set[str]:
    return set().union(*(row.keys() for row in group.rows)) if group.rows else set()


def _epoch_name(row: Mapping[str, Any], count: int) -> str:
    if count > MAX_PATHS:
        return "last epoch"
    return "before" if row["epoch"] == 0 else f"epoch {row['epoch']}"


def _guides(results: Mapping[str, Any], x: str, y: str) -> tuple[Guide, ...]:
    guides, retain = [], results["retain_model"]
    label = sweep.label_models(results)["retain_model"]
    if retain.get(x) is not None:
        guides.append(Guide("x", retain[x], label))
    if y == "forget/quality":
        guides.append(Guide("y", ALIKE, "0.05: no longer told apart"))
    elif retain.get(y) is not None:
        guides.append(Guide("y", retain[y], label))
    return tuple(guides)


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


def _pretty_cell(cell: str) -> str:
    """Return "1.9e-04 ± 2e-04" with printed powers, "-" as a dash."""
    return "–" if cell == "-" else re.sub(r"[\d.]+e-?\d+", lambda m: pretty_power(m[0]), cell)


def default_place(folders: Sequence[Path]) -> Path:
    """Return report.html in the folder that holds all these runs."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / FILE_NAME
