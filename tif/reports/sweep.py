"""Results of a sweep: each run's best and last epoch, mean and deviation over seeds.

Called by `tif.sweep`. Written as results.json, table.md and quality_utility.png, shown as a table.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from tif.metrics import overall
from tif.metrics.overall import SCORE
from tif.reports.columns import COLUMNS, columns_of, format_number
from tif.reports.plots import QUALITY_UTILITY_PLOT, plot_sweep
from tif.reports.run_folder import evaluation_rows, retain_row
from tif.utils.files import write_text
from tif.utils.terminal import console

RESULTS_FILE = "results.json"
EPOCHS = ("best", "last")
MODELS = {"before": "before", "retain_model": "retain model"}  # key in the results -> label
# The short table shows the first of these pairs that was measured.
MAIN_METRICS = (("forget/quality", "utility/model"), ("muse/privleak", "muse/knowmem_retain"))


def collect_results(folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the metrics of each run at its best and its last epoch, over its seeds.

    The best epoch has the highest score (`metrics.overall.overall_score`). Epoch 0, the model before
    training, is never the best.

    Args:
        folders: run name -> folders of its finished runs, one for each seed.

    Returns:
        {"runs": {name: {"seeds": n, "best"/"last": {metric: {"mean", "sd", "values"}}}},
        "before", "retain_model": {metric: mean over all runs}}. sd is that of a sample (n - 1),
        None for one seed.
    """
    runs, before, retain = {}, [], []
    for name, seed_folders in folders.items():
        best, last = [], []
        for folder in seed_folders:
            evaluations = evaluation_rows(folder)
            before += [row for row in evaluations if row["epoch"] == 0]
            retain.append(retain_row(folder))
            trained = [_with_score(row) for row in evaluations if row["epoch"] > 0]
            if trained:
                best.append(max(trained, key=lambda row: row[SCORE]))
                last.append(trained[-1])
        runs[name] = {"seeds": len(last), "best": _statistics(best), "last": _statistics(last)}
    retain = [row for row in retain if row]
    return {"runs": runs, "before": _means(before), "retain_model": _means(retain)}


def write_results(folder: Path, folders: Mapping[str, Sequence[Path]]) -> None:
    """Write results.json, table.md and the plot of the runs that are there.

    Args:
        folder: of the sweep.
        folders: as `collect_results` takes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = collect_results(folders)
    tables = _markdown(short_table(results)) + "\n" + _markdown(full_table(results))
    write_text(folder / RESULTS_FILE, json.dumps(results, indent=1) + "\n")
    write_text(folder / "table.md", tables)
    plot_sweep(folder / QUALITY_UTILITY_PLOT, results)


def show_results(folder: Path) -> None:
    """Print the short table of a sweep's folder, and where its files are."""
    results = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    header, *lines = short_table(results)
    title = "Mean ± deviation over seeds; best by eval.best=score, best runs first"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Names are never folded, also not in a narrow terminal or in a job's log; numbers are.
    table.add_column(header[0], min_width=max(len(line[0]) for line in lines), overflow="fold")
    for column in header[1:]:
        two_words_a_line = "\n".join(column.split(" ", 2))
        table.add_column(two_words_a_line, justify="right", overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
    console.print(f"results: {escape(str(folder))}", soft_wrap=True)


def short_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header and a line for each run, ranked: two metrics, best and last epoch.

    The lines fit a terminal of 80 columns.
    """
    columns = _columns(results)
    metrics = _main_metrics(columns)
    header = ["run"]
    for epoch in EPOCHS:
        header += [f"{epoch}: {columns[metric]}" for metric in metrics]
    lines = [header]
    for name, run in _ranked(results):
        cells = [name]
        for epoch in EPOCHS:
            cells += [_cell(run[epoch].get(metric)) for metric in metrics]
        lines.append(cells)
    for key, label in MODELS.items():
        if results[key]:
            values = [format_number(results[key].get(metric)) for metric in metrics]
            lines.append([label, *["-"] * len(metrics), *values])
    return lines


def full_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then two lines for each run, ranked: all metrics, best and last epoch."""
    columns = _columns(results)
    lines = [["run", "epoch", "seeds", *columns.values()]]
    for name, run in _ranked(results):
        for epoch in EPOCHS:
            cells = [_cell(run[epoch].get(metric)) for metric in columns]
            lines.append([name, _epoch_label(epoch, run[epoch]), str(run["seeds"]), *cells])
    for key, label in MODELS.items():
        if results[key]:
            values = [format_number(results[key].get(metric)) for metric in columns]
            lines.append([label, "-", "-", *values])
    return lines


def _with_score(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its score; 0 where the row lacks what the score is made from."""
    return {**row, SCORE: overall.overall_score(row) or 0.0}


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, sample deviation and values of each shown metric that all rows have."""
    summary: dict[str, Any] = {}
    for metric in ("epoch", SCORE, *COLUMNS):
        present = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if present and len(present) == len(rows):
            deviation = statistics.stdev(present) if len(present) > 1 else None
            mean = statistics.fmean(present)
            summary[metric] = {"mean": mean, "sd": deviation, "values": present}
    return summary


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each shown metric that all rows have."""
    return {metric: values["mean"] for metric, values in _statistics(rows).items()}


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that have a number in any line."""
    rows = [results[key] for key in MODELS]
    for run in results["runs"].values():
        rows += [run[epoch] for epoch in EPOCHS]
    return columns_of(rows)


def _main_metrics(columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the two metrics of the short table: one of forgetting, one of usefulness."""
    for pair in MAIN_METRICS:
        if set(pair) <= columns.keys():
            return pair
    return tuple(columns)[:2]


def _ranked(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return (name, run), the highest mean score of the best epochs first."""

    def score(item: tuple[str, Any]) -> float:
        best = item[1]["best"]
        return best[SCORE]["mean"] if SCORE in best else -1.0  # no evaluation: below all others

    return sorted(results["runs"].items(), key=score, reverse=True)


def _epoch_label(name: str, metrics: Mapping[str, Any]) -> str:
    """Return "best (2/1)": the numbers of the epochs, seed by seed."""
    if "epoch" not in metrics:
        return name
    numbers = "/".join(f"{number:g}" for number in metrics["epoch"]["values"])
    return f"{name} ({numbers})"


def _cell(value: Mapping[str, Any] | None) -> str:
    """Return "mean ± deviation", the deviation only where there is one."""
    if value is None:
        return "-"
    mean, deviation = format_number(value["mean"]), value["sd"]
    if deviation is None:
        return mean
    is_tiny = 0 < deviation < 0.001
    return f"{mean} ± {deviation:.0e}" if is_tiny else f"{mean} ± {format_number(deviation)}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its header."""
    header, *body = lines
    rows = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
