"""Results of a sweep: each run's best and last epoch, mean and deviation over seeds.

Called by `tif.sweep`, `tif.report` and the comparison of runs. Written as results.json and
table.md, shown as a table.
"""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tif.metrics import overall
from tif.metrics.overall import SCORE
from tif.records.run_folder import evaluation_rows, read_flat_config, read_steps, read_summary
from tif.reports.columns import (
    column_title,
    columns_of,
    count_units,
    format_interval,
    format_mean,
    format_metric,
    list_columns,
    list_main_columns,
    markdown_table,
)
from tif.reports.summary import read_best, retain_row
from tif.utils.files import write_text
from tif.utils.hashing import hash_json
from tif.utils.terminal import console

RESULTS_FILE = "results.json"
EPOCHS = ("best", "last")
MODELS = {"before": "before", "retain_model": "retain model"}  # key in the results -> label
SHORT_COLUMNS = 3  # of the printed table; with the names they fit 80 columns
WORDS = ("words/unwanted", "words/general")
QUALITY, KEPT = "forget/quality", "utility/kept"
# Keys of section eval that change no number of an evaluation.
SCHEDULE = ("before_training", "every_n_epochs", "kl", "best", "audit", "stop_on", "samples")


@dataclasses.dataclass(frozen=True)
class View:
    """The table and the pictures of its runs that a sweep's file asks for."""

    epoch: str = "last"  # last or best; what table and plots show
    columns: Sequence[str] = ()  # metrics of the table; () = the pair that every sweep shows
    # by name, (x, y): a point a run; x is a metric or a key
    plots: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    # by name, (x, y): two metrics, each run over its epochs
    paths: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    # by run, its entry of `runs` and its values of `grid`
    entries: Mapping[str, tuple[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


def collect_results(folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the metrics of each run at its last and its best epoch, over its seeds.

    The last epoch is the result. The best is the one that `eval.best` chose on one half of the
    questions; its numbers are of the other half.

    Args:
        folders: run name -> folders of its finished runs, one for each seed.

    Returns:
        {"runs": {name: {"seeds": n, "best"/"last": {metric: {"mean", "sd", "values"}},
        "steps": [{"planned", "made"}, one for each seed], "intervals": {"best"/"last": [forget
        quality's 95 % of each seed, or None]}, "over": the units of these, in words}},
        "before", "retain_model": {metric: mean over the runs that have it},
        "models": {"before", "retain_model": how many different ones these means are of}}; sd is
        None for one seed.
    """
    runs, before, retain = {}, [], []
    starts = _find_start_rows(folders)
    for name, seed_folders in folders.items():
        best, last, intervals = [], [], dict[str, list[Any]](best=[], last=[])
        steps = [read_steps(folder) for folder in seed_folders]
        for folder in seed_folders:
            rows = evaluation_rows(folder)
            before += [row for row in rows if row["epoch"] == 0]
            start = starts.get(_start_key(folder), {})
            if rows and rows[-1]["epoch"] > 0:
                last.append(_add_scores(rows[-1], start))
                intervals["last"].append(read_summary(folder).intervals.get(QUALITY))
            chosen = read_best(folder)
            if chosen:
                best.append(_add_scores(chosen.row, start))
                intervals["best"].append(chosen.intervals.get(QUALITY))
            if retain_row(folder):
                retain.append(retain_row(folder))
        best = best if len(best) == len(last) else []  # no mean over some of the seeds
        units = read_summary(seed_folders[0]).groups.get("forget", {}) if seed_folders else {}
        runs[name] = {
            "seeds": len(last),
            "best": summarize_rows(best),
            "last": summarize_rows(last),
            "steps": steps,
            "intervals": intervals,
            "over": count_units(units) or "questions",
        }
    counts = {"before": _count_models(before), "retain_model": _count_models(retain)}
    means = {"before": _means(before), "retain_model": _means(retain)}
    return {"runs": runs, **means, "models": counts}


def _find_start_rows(folders: Mapping[str, Sequence[Path]]) -> dict[str, Mapping[str, Any]]:
    """Return the evaluations before training; runs that start alike need only one."""
    starts: dict[str, Mapping[str, Any]] = {}
    for seed_folders in folders.values():
        for folder in seed_folders:
            rows = evaluation_rows(folder)
            if rows and rows[0]["epoch"] == 0:
                starts[_start_key(folder)] = rows[0]
    return starts


def _start_key(folder: Path) -> str:
    """Return a hash of what decides about the evaluation before training."""
    flat, deciding = read_flat_config(folder), {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        is_rule = section == "eval" and name not in SCHEDULE
        if is_rule or section in ("data", "model", "stages") or key == "run.seed":
            deciding[key] = value
    return hash_json(deciding) if "run.seed" in flat else str(folder)


def _add_scores(row: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its score, and with the utility that it kept of the start's."""
    scored = {**row, SCORE: overall.overall_score(row) or 0.0}
    share = overall.utility_kept(row, start)
    return scored if share is None else {**scored, KEPT: share}


def write_results(
    folder: Path, folders: Mapping[str, Sequence[Path]], view: View | None = None
) -> dict[str, Any]:
    """Write results.json and table.md to the sweep's folder; return `collect_results`."""
    results = collect_results(folders)
    first = view_table(results, view) if view and view.columns else short_table(results)
    tables = markdown_table(first) + "\n" + markdown_table(full_table(results))
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
    title = "Mean ± deviation over seeds; best: chosen by eval.best, on the other half"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # Names are never folded, also not in a narrow terminal or in a job's log; numbers are.
    table.add_column(header[0], min_width=max(len(line[0]) for line in lines), no_wrap=True)
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
    """Return a header, then lines for each run, ranked: the first main metrics, UW and GW."""
    columns = _columns(results)
    metrics = [name for name in list_main_columns() if name in columns][:SHORT_COLUMNS]
    metrics += [name for name in WORDS if name in columns and name not in metrics]
    table = _make_table(results, {metric: columns[metric] for metric in metrics})
    return [[*line[:2], *line[4:]] for line in table]


def view_table(results: Mapping[str, Any], view: View) -> list[list[str]]:
    """Return a header and a line a run, in the file's order; quality has each seed's interval."""
    lines = [["run", "seeds", "steps"]]
    for metric in view.columns:
        lines[0].append(column_title(metric))
        lines[0] += ["95 %"] if metric == QUALITY else []
    for name, run in results["runs"].items():
        lines.append([name, str(run["seeds"]), _steps_cell(run["steps"])])
        for metric in view.columns:
            lines[-1].append(format_mean(metric, run[view.epoch].get(metric)))
            if metric == QUALITY:
                known = [format_interval(pair) for pair in run["intervals"][view.epoch] if pair]
                lines[-1].append(f"{'; '.join(known)} over {run['over']}" if known else "-")
    for key, label in label_models(results).items():
        if results[key]:
            lines.append([label, "-", "-"])
            for metric in view.columns:
                lines[-1].append(format_metric(metric, results[key].get(metric)))
                lines[-1] += ["-"] if metric == QUALITY else []
    return lines


def full_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then lines for each run, ranked: all metrics, best and last epoch."""
    return _make_table(results, _columns(results))


def _make_table(results: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    """Return a header, then lines for each run, ranked, and for the models that it begins with."""
    lines = [["run", "epoch", "seeds", "steps", *columns.values()]]
    for name, run in rank(results):
        counts = [str(run["seeds"]), _steps_cell(run.get("steps", ()))]
        for epoch in _epochs_of(run):
            cells = [format_mean(metric, run[epoch].get(metric)) for metric in columns]
            lines.append([name, _name_epoch(epoch, run), *counts, *cells])
    for key, label in label_models(results).items():
        if results[key]:
            cells = [format_metric(metric, results[key].get(metric)) for metric in columns]
            lines.append([label, "-", "-", "-", *cells])
    return lines


def _epochs_of(run: Mapping[str, Any]) -> Sequence[str]:
    """Return the epochs to show: both, or the last alone where it or none is each seed's best."""
    best, last = (run[epoch].get("epoch", {"values": []})["values"] for epoch in ("best", "last"))
    return EPOCHS if best not in ([], last) else EPOCHS[1:]


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


def label_models(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what the lines of the model before training and of the retain model are called.

    A sweep over seeds, data sets or architectures has several of them: "before, mean of 6".
    """
    counts, labels = results["models"], {}
    for key, label in MODELS.items():
        labels[key] = f"{label}, mean of {counts[key]}" if counts[key] > 1 else label
    return labels


def _count_models(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many different models the rows are of: the most values that a metric has.

    Compared in four digits. The metrics of words depend on what a run marks, not on the model
    alone.
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for metric, value in row.items():
            if value is not None and not metric.startswith("words/"):
                values.setdefault(metric, set()).add(f"{value:.4g}")
    return max(map(len, values.values()), default=0)


def summarize_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, sample deviation and values of each metric that all rows have."""
    summary, metrics = dict[str, Any](), dict.fromkeys(["epoch", SCORE, *list_columns()])
    for row in rows:
        metrics |= dict.fromkeys(row)
    metrics.pop("step", None)
    for metric in metrics:
        values = [float(row[metric]) for row in rows if row.get(metric) is not None]
        if values and len(values) == len(rows):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            summary[metric] = {"mean": statistics.fmean(values), "sd": deviation, "values": values}
    return summary


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each metric over the rows that have it: a run without spans has no UW."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row.items():
            if value is not None and metric != "step":
                values.setdefault(metric, []).append(float(value))
    return {metric: statistics.fmean(numbers) for metric, numbers in values.items()}


def _columns(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that have a number in any line."""
    rows = [results[key] for key in MODELS]
    for run in results["runs"].values():
        rows += [run[epoch] for epoch in EPOCHS]
    return columns_of(rows)


def rank(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return (name, run) of all runs, the highest mean score of the last epochs first."""
    no_evaluation = {"mean": -1.0}
    runs = results["runs"].items()
    return sorted(runs, key=lambda item: -item[1]["last"].get(SCORE, no_evaluation)["mean"])
