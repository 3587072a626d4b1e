"""What a sweep found: mean and deviation over seeds of each run's best and last epoch, as files, table and plot."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from tif.metrics import overall
from tif.metrics.overall import SCORE
from tif.reports import run as report
from tif.utils.files import write_text
from tif.utils.terminal import console

RESULTS = "results.json"
EPOCHS = ("best", "last")


def results(folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """By run name: for the best (by `overall.score`) and the last epoch, each metric's mean and deviation over seeds.

    Args:
        folders: finished runs by name, one a seed. A run's first row, the model before training, is nobody's best.

    Returns:
        {"runs": {name: {"seeds": n, "best"/"last": {metric: {"mean", "sd", "values"}}}}, "before", "retain_model":
        {metric: mean over all runs}}; sd is that of a sample (n - 1), null for one seed.
    """
    found: dict[str, Any] = {"runs": {}, "before": {}, "retain_model": {}}
    before, retain = [], []
    for name, own in folders.items():
        epochs = [[_scored(row) for row in report.evaluations(folder) if row["epoch"] > 0] for folder in own]
        epochs = [rows for rows in epochs if rows]
        before += [row for folder in own for row in report.evaluations(folder) if row["epoch"] == 0]
        retain += [row for folder in own if (row := report.retain_row(folder))]
        found["runs"][name] = {
            "seeds": len(epochs),
            "best": _statistics([max(rows, key=lambda row: row[SCORE]) for rows in epochs]),
            "last": _statistics([rows[-1] for rows in epochs]),
        }
    for title, rows in (("before", before), ("retain_model", retain)):
        found[title] = {metric: value["mean"] for metric, value in _statistics(rows).items()}
    return found


def _scored(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its score, 0 where it lacks what that is made from."""
    return {**row, SCORE: overall.score(row) or 0.0}


def _statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, sample deviation and values of each of the report's metrics, of `epoch` and score, that all rows have."""
    shown = [key for key in ("epoch", SCORE, *report.COLUMNS) if rows and all(row.get(key) is not None for row in rows)]
    columns = {key: [float(row[key]) for row in rows] for key in shown}
    return {
        key: {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
        }
        for key, values in columns.items()
    }


def write(folder: Path, folders: Mapping[str, Sequence[Path]]) -> None:
    """results.json, table.md and quality_utility.png of the runs that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    found = results(folders)
    write_text(folder / RESULTS, json.dumps(found, indent=1) + "\n")
    write_text(folder / "table.md", _markdown(brief(found)) + "\n" + _markdown(rows(found)))
    _plot(folder / "quality_utility.png", found)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(lines[0])
    return "".join("| " + " | ".join(line) + " |\n" for line in (lines[0], rule, *lines[1:]))


def _ranked(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and results, largest mean score of the best epochs first; runs without an evaluation last."""
    return sorted(found["runs"].items(), key=lambda item: -item[1]["best"].get(SCORE, {"mean": -1.0})["mean"])


def _shown(found: Mapping[str, Any]) -> dict[str, str]:
    seen = [own[epoch] for own in found["runs"].values() for epoch in EPOCHS] + [found["before"], found["retain_model"]]
    return {key: title for key, title in report.COLUMNS.items() if any(key in row for row in seen)}


def brief(found: Mapping[str, Any]) -> list[list[str]]:
    """A line a run, ranked: forgetting and usefulness at the best and the last epoch; fits 80 columns."""
    shown = _shown(found)
    pairs = (("forget/quality", "utility/model"), ("muse/privleak", "muse/knowmem_retain"), tuple(shown)[:2])
    pair = next(own for own in pairs if set(own) <= set(shown))
    lines = [["run", *(f"{epoch}: {shown[key]}" for epoch in EPOCHS for key in pair)]]
    lines += [[name, *(_cell(own[e].get(key)) for e in EPOCHS for key in pair)] for name, own in _ranked(found)]
    for title, label in (("before", "before"), ("retain_model", "retain model")):
        if found[title]:
            lines.append([label, *["-"] * len(pair), *(report.number(found[title].get(key)) for key in pair)])
    return lines


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """All that was measured, ranked: a run and an epoch a line, "mean ± deviation" of each metric; then both models."""
    shown = _shown(found)
    lines = [["run", "epoch", "seeds", *shown.values()]]
    for name, own in _ranked(found):
        for epoch in EPOCHS:
            number = own[epoch].get("epoch")
            label = epoch if number is None else f"{epoch} ({'/'.join(f'{v:g}' for v in number['values'])})"
            lines.append([name, label, str(own["seeds"]), *(_cell(own[epoch].get(key)) for key in shown)])
    for title, label in (("before", "before"), ("retain_model", "retain model")):
        if found[title]:
            lines.append([label, "-", "-", *(report.number(found[title].get(key)) for key in shown)])
    return lines


def _cell(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if value["sd"] is None:
        return report.number(value["mean"])
    deviation = f"{value['sd']:.0e}" if 0 < value["sd"] < 0.001 else report.number(value["sd"])
    return f"{report.number(value['mean'])} ± {deviation}"


def show(folder: Path) -> None:
    """Print the short table, and where the files are."""
    header, *lines = brief(json.loads((folder / RESULTS).read_text(encoding="utf-8")))
    title = "Mean ± deviation over seeds; best by eval.best=score, best runs first"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, column in enumerate(header):
        # Names whole however narrow the terminal, or the log of a job; numbers fold.
        width = max(len(line[0]) for line in lines) if i == 0 else None
        side: Literal["left", "right"] = "right" if i else "left"
        table.add_column("\n".join(column.split(" ", 2)), justify=side, min_width=width, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
    console.print(f"results: {escape(str(folder))}", soft_wrap=True)


def _plot(path: Path, found: Mapping[str, Any]) -> None:
    """Forget quality against model utility: a colour a run, its best epoch filled, its last one hollow."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    both = ("utility/model", "forget/quality")
    named = {name: own for name, own in found["runs"].items() if all(key in own["last"] for key in both)}
    if not named:
        return
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for i, (name, own) in enumerate(named.items()):
        colour, marker = colormaps["tab20"](i % 20), "osD^v<>P"[i // 20 % 8]
        for epoch, face in (("best", colour), ("last", "none")):
            (x, dx), (y, dy) = ((own[epoch][key]["mean"], own[epoch][key]["sd"]) for key in both)
            # A deviation larger than the mean would leave the logarithmic axis.
            down = None if dy is None else [[min(dy, 0.9 * y)], [dy]]
            axes.errorbar(x, y, xerr=dx, yerr=down, fmt=marker, color=colour, markerfacecolor=face, elinewidth=0.8,
                          label=name if epoch == "best" else None)  # fmt: skip
    if "utility/model" in found["retain_model"]:
        utility = found["retain_model"]["utility/model"]
        axes.axvline(utility, linestyle="--", color="tab:red", label="retain model's utility")
    axes.axhline(0.05, linestyle=":", color="0.5", label="0.05")
    axes.set_yscale("log")
    axes.set_ylim(top=2)
    axes.set_xlabel("model utility")
    axes.set_ylabel("forget quality (KS p-value)")
    axes.set_title("best epoch filled, last epoch hollow; bars: deviation over seeds", fontsize=9)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)
