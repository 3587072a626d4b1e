"""Results of a sweep: each run's best and last epoch, mean and deviation over seeds.

Called by `tif.sweep`, `tif.report` and the comparison of runs. Written as results.json and
table.md, shown as a table.
"""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.metrics import overall
from tif.metrics.overall import SCORE
from tif.records.run_folder import evaluation_rows, read_flat_config, read_steps, read_summary
from tif.reports.columns import (
    QUALITY,
    column_title,
    columns_of,
    count_units,
    format_interval,
    format_mean,
    format_metric,
    list_columns,
    list_main_columns,
    markdown_table,
    terminal_table,
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
KEPT = "utility/kept"
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
    models: dict[str, list[Mapping[str, Any]]] = {"before": [], "retain_model": []}
    starts: dict[str, Mapping[str, Any]] = {}  # runs that start alike need only one evaluation
    for folder in itertools.chain(*folders.values()):
        for row in evaluation_rows(folder)[:1]:
            if row["epoch"] == 0:
                models["before"].append(row)
                starts[_start_key(folder)] = row
        models["retain_model"] += filter(None, [retain_row(folder)])
    runs = {name: _collect_run(seed_folders, starts) for name, seed_folders in folders.items()}
    means = {}
    for key, rows in models.items():  # over those that have it: a run without spans has no UW
        means[key] = {name: statistics.fmean(values) for name, values in _gather(rows).items()}
    return {"runs": runs, **means, "models": {key: _count_models(models[key]) for key in models}}


def _collect_run(
    folders: Sequence[Path], starts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the numbers of one run over its seeds."""
    rows: dict[str, list[dict[str, Any]]] = {epoch: [] for epoch in EPOCHS}
    intervals: dict[str, list[Any]] = {epoch: [] for epoch in EPOCHS}
    for folder in folders:
        start, evaluations = starts.get(_start_key(folder), {}), evaluation_rows(folder)
        chosen = read_best(folder)
        if chosen:
            rows["best"].append(_add_scores(chosen.row, start))
            intervals["best"].append(chosen.intervals.get(QUALITY))
        if evaluations and evaluations[-1]["epoch"] > 0:
            rows["last"].append(_add_scores(evaluations[-1], start))
            intervals["last"].append(read_summary(folder).intervals.get(QUALITY))
    if len(rows["best"]) != len(rows["last"]):  # no mean over some of the seeds
        rows["best"] = []
    units = read_summary(folders[0]).groups.get("forget", {}) if folders else {}
    return {
        "seeds": len(rows["last"]),
        **{epoch: summarize_rows(rows[epoch]) for epoch in EPOCHS},
        "steps": [read_steps(folder) for folder in folders],
        "intervals": intervals,
        "over": count_units(units) or "questions",
    }


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


def _gather(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the values of each metric, of the rows that have it; metrics of tables come first."""
    columns: dict[str, list[float]] = {name: [] for name in ("epoch", SCORE, *list_columns())}
    for row in rows:
        for metric, value in row.items():
            if value is not None and metric != "step":
                columns.setdefault(metric, []).append(float(value))
    return {metric: values for metric, values in columns.items() if values}


def summarize_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, sample deviation and values of each metric that all rows have."""
    summary: dict[str, Any] = {}
    for metric, values in _gather(rows).items():
        if len(values) == len(rows):
            deviation = statistics.stdev(values) if len(values) > 1 else None
            summary[metric] = {"mean": statistics.fmean(values), "sd": deviation, "values": values}
    return summary


def _count_models(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return how many different models the rows are of: the most values that a metric has.

    Compared in four digits. The metrics of words depend on what a run marks, not on the model
    alone.
    """
    counts = []
    for metric, values in _gather(rows).items():
        if not metric.startswith("words/"):
            counts.append(len({f"{value:.4g}" for value in values}))
    return max(counts, default=0)


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
    table = terminal_table(header, title, overflow="fold")
    names, epochs = table.columns[:2]
    # Names are never folded, also not in a narrow terminal or in a job's log; numbers are.
    names.min_width, names.no_wrap = max(len(line[0]) for line in lines), True
    epochs.justify, epochs.no_wrap = "left", True
    name = ""
    for line in lines:
        table.add_row("" if line[0] == name else line[0], *line[1:])
        name = line[0]
    console.print(table)


def short_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then lines for each run, ranked: the first main metrics, UW and GW."""
    columns = known_columns(results)
    metrics = [name for name in list_main_columns() if name in columns][:SHORT_COLUMNS]
    metrics += [name for name in WORDS if name in columns and name not in metrics]
    return [[*line[:2], *line[4:]] for line in _make_table(results, metrics)]


def view_table(results: Mapping[str, Any], view: View) -> list[list[str]]:
    """Return a header and a line a run, in the file's order; quality has each seed's interval."""

    def join(cells: Iterable[str], interval: str) -> list[str]:
        """Return the cells of the metrics, with an interval behind forget quality's."""
        joined = []
        for metric, cell in zip(view.columns, cells, strict=True):
            joined += [cell, interval] if metric == QUALITY else [cell]
        return joined

    lines = [["run", "seeds", "steps", *join(map(column_title, view.columns), "95 %")]]
    for name, run in results["runs"].items():
        known = [format_interval(pair) for pair in run["intervals"][view.epoch] if pair]
        interval = f"{'; '.join(known)} over {run['over']}" if known else "-"
        cells = [format_mean(metric, run[view.epoch].get(metric)) for metric in view.columns]
        lines.append([name, str(run["seeds"]), _steps_cell(run["steps"]), *join(cells, interval)])
    for label, means in model_rows(results).items():
        cells = [format_metric(metric, means.get(metric)) for metric in view.columns]
        lines.append([label, "-", "-", *join(cells, "-")])
    return lines


def full_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return a header, then lines for each run, ranked: all metrics, best and last epoch."""
    return _make_table(results, list(known_columns(results)))


def _make_table(results: Mapping[str, Any], metrics: Sequence[str]) -> list[list[str]]:
    """Return a header, then lines for each run, ranked, and for the models that it begins with."""
    lines = [["run", "epoch", "seeds", "steps", *map(column_title, metrics)]]
    for name, run in rank(results):
        counts = [str(run["seeds"]), _steps_cell(run.get("steps", ()))]
        best, last = (run[epoch].get("epoch", {"values": []})["values"] for epoch in EPOCHS)
        # The last epoch stands alone where it, or none, is each seed's best.
        for epoch in EPOCHS if best not in ([], last) else EPOCHS[1:]:
            cells = [format_mean(metric, run[epoch].get(metric)) for metric in metrics]
            lines.append([name, _name_epoch(epoch, run), *counts, *cells])
    for label, means in model_rows(results).items():
        cells = [format_metric(metric, means.get(metric)) for metric in metrics]
        lines.append([label, "-", "-", "-", *cells])
    return lines


def _name_epoch(epoch: str, run: Mapping[str, Any]) -> str:
    """Return "best (4/7)": the number for each seed, once where all have the same."""
    numbers = run[epoch].get("epoch", {"values": []})["values"]
    distinct = numbers[:1] if len(set(numbers)) == 1 else numbers
    return f"{epoch} ({'/'.join(f'{n:g}' for n in distinct)})" if numbers else epoch


def _steps_cell(steps: Sequence[Mapping[str, int | None]]) -> str:
    """Return the steps that each seed's run made; with the planned number where it is another."""
    cells = []
    for run in steps:
        is_complete = run["planned"] in (run["made"], None)
        cells.append(f"{run['made']}" if is_complete else f"{run['made']} of {run['planned']}")
    return "/".join(dict.fromkeys(cells))


def label_models(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what the lines of the model before training and of the retain model are called.

    A sweep over seeds, data sets or architectures has several of them: "before, mean of 6".
    """
    labels = {}
    for key, label in MODELS.items():
        count = results["models"][key]
        labels[key] = f"{label}, mean of {count}" if count > 1 else label
    return labels


def model_rows(results: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return by label the means of the models that the runs begin with or are compared to."""
    return {label: results[key] for key, label in label_models(results).items() if results[key]}


def known_columns(results: Mapping[str, Any]) -> dict[str, str]:
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
