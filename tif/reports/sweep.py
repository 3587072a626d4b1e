"""Results of a sweep: each run's best and last epoch, mean and deviation over seeds.

Called by `tif.sweep`, `tif.report` and the comparison of runs. Written as results.json and
table.md, shown as a table.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tif.metrics import overall
from tif.metrics.overall import SCORE
from tif.reports.columns import COLUMNS, columns_of, format_number, markdown_table
from tif.reports.run_folder import evaluation_rows, read_steps, retain_row
from tif.utils.files import write_text
from tif.utils.terminal import console

RESULTS_FILE = "results.json"
EPOCHS = ("best", "last")
MODELS = {"before": "before", "retain_model": "retain model"}  # key in the results -> label
# The short table shows the first of these lines whose metrics were measured.
MAIN_METRICS = (
    ("forget/quality", "forget/extraction_strength", "utility/model"),
    ("forget/quality", "utility/model"),
    ("muse/privleak", "muse/knowmem_forget", "muse/knowmem_retain"),
)
SHORT_TITLES = {"forget/extraction_strength": "extraction ↓"}


def collect_results(folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the metrics of each run at its best and its last epoch, over its seeds.

    The best epoch has the highest `metrics.overall.overall_score`. Epoch 0, the model before
    training, is never the best.

    Args:
        folders: run name -> folders of its finished runs, one for each seed.

    Returns:
        {"runs": {name: {"seeds": n, "best"/"last": {metric: {"mean", "sd", "values"}},
        "steps": [{"planned", "made"}, one for each seed]}},
        "before", "retain_model": {metric: mean over all runs}}; sd is None for one seed.
    """
    runs, before, retain = {}, [], []
    for name, seed_folders in folders.items():
        best, last = [], []
        steps = [read_steps(folder) for folder in seed_folders]
        for folder in seed_folders:
            rows = evaluation_rows(folder)
            before += [row for row in rows if row["epoch"] == 0]
            trained = [row for row in rows if row["epoch"] > 0]
            trained = [{**row, SCORE: overall.overall_score(row) or 0.0} for row in trained]
            if trained:
                best.append(max(trained, key=lambda row: row[SCORE]))
                last.append(trained[-1])
            if retain_row(folder):
                retain.append(retain_row(folder))
        runs[name] = {"seeds": len(last), "best": _statistics(best), "last": _statistics(last)}
        runs[name]["steps"] = steps
    return {"runs": runs, "before": _means(before), "retain_model": _means(retain)}


def write_results(folder: Path, folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Write results.json and table.md to the sweep's folder; return `collect_results`."""
    results = collect_results(folders)
    tables = markdown_table(short_table(results)) + "\n" + markdown_table(full_table(results))
    write_text(folder / RESULTS_FILE, json.dumps(results, indent=1) + "\n")
    write_text(folder / "table.md", tables)
    return results


def show_results(folder: Path, results: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Print the table of a sweep's results, notes, and the folder where its files are."""
    show_table(results)
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print(f"results: {folder}", soft_wrap=True)


def show_table(results: Mapping[str, Any]) -> None:
    """Print the short table of several runs."""
    header, *lines = short_table(results)
    title = "Mean ± deviation over seeds; best by eval.best=score, best runs first"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Names are never folded, also not in a narrow terminal or in a job's log; numbers are.
    table.add_column(header[0], min_width=max(len(line[0]) for line in lines), overflow="fold")
    table.add_column(header[1], no_wrap=True)
    for column in header[2:]:
        table.add_column(column, justify="right", overflow="fold")
    name = ""
    for line in lines:
        is_second = line[0] == name
        name = line[0]
        table.add_row("" if is_second else name, *line[1:])
    console.print(table)


def short_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then two lines for each run, ranked: the main metrics, best and last epoch.

    The lines fit a terminal of 80 columns.
    """
    columns = _columns(results)
    measured = [metrics for metrics in MAIN_METRICS if set(metrics) <= columns.keys()]
    metrics = measured[0] if measured else tuple(columns)[:3]
    lines = [["run", "epoch", *(SHORT_TITLES.get(metric, columns[metric]) for metric in metrics)]]
    for name, run in rank(results):
        for epoch in EPOCHS:
            cells = [_cell(run[epoch].get(metric)) for metric in metrics]
            lines.append([name, _name_epoch(epoch, run), *cells])
    return lines + _model_lines(results, metrics, ["-"])


def full_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then two lines for each run, ranked: all metrics, best and last epoch."""
    columns = _columns(results)
    lines = [["run", "epoch", "seeds", "steps", *columns.values()]]
    for name, run in rank(results):
        for epoch in EPOCHS:
            cells = [_cell(run[epoch].get(metric)) for metric in columns]
            counts = [str(run["seeds"]), _steps_cell(run.get("steps", ()))]
            lines.append([name, _name_epoch(epoch, run), *counts, *cells])
    return lines + _model_lines(results, columns, ["-", "-", "-"])


def _name_epoch(epoch: str, run: Mapping[str, Any]) -> str:
    """Return "best (4/7)": the number for each seed, once where all have the same."""
    numbers = run[epoch].get("epoch", {"values": []})["values"]
    distinct = dict.fromkeys(numbers) if len(set(numbers)) == 1 else numbers
    return f"{epoch} ({'/'.join(f'{n:g}' for n in distinct)})" if numbers else epoch


def _steps_cell(steps: Sequence[Mapping[str, int | None]]) -> str:
    """Return the steps that each seed's run made; with the planned number where it is another."""
    cells = []
    for run in steps:
        steps_made, planned = run["made"], run["planned"]
        is_whole = planned in (steps_made, None)
        cells.append(f"{steps_made}" if is_whole else f"{steps_made} of {planned}")
    return "/".join(dict.fromkeys(cells))


def _model_lines(
    results: Mapping[str, Any], metrics: Iterable[str], blanks: Sequence[str]
) -> list[list[str]]:
    """Return the lines of the model before training and of the retain model."""
    lines = []
    for key, label in MODELS.items():
        if results[key]:
            values = [format_number(results[key].get(metric)) for metric in metrics]
            lines.append([label, *blanks, *values])
    return lines


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, sample deviation and values of each shown metric that all rows have."""
    summary: dict[str, Any] = {}
    for metric in ("epoch", SCORE, *COLUMNS):
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if values and len(values) == len(rows):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            summary[metric] = {"mean": statistics.fmean(values), "sd": deviation, "values": values}
    return summary


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {metric: values["mean"] for metric, values in _statistics(rows).items()}


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that have a number in any line."""
    rows = [results[key] for key in MODELS]
    for run in results["runs"].values():
        rows += [run[epoch] for epoch in EPOCHS]
    return columns_of(rows)


def rank(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return (name, run) of all runs, the highest mean score of the best epochs first."""
    no_evaluation = {"mean": -1.0}
    runs = results["runs"].items()
    return sorted(runs, key=lambda item: -item[1]["best"].get(SCORE, no_evaluation)["mean"])


def _cell(value: Mapping[str, Any] | None) -> str:
    """Return "mean ± deviation", the deviation only where there is one."""
    if value is None:
        return "-"
    mean, deviation = format_number(value["mean"]), value["sd"]
    if deviation is None:
        return mean
    tiny = f"{deviation:.0e}"  # one digit is enough
    return f"{mean} ± {tiny if 0 < deviation < 0.001 else format_number(deviation)}"
