"""Draw forget quality against model utility, and the terms of the loss by step.

`write_plots` is called at the end of a run and by `tif report`; `plot_sweep` by the
report of a sweep. Matplotlib is imported inside functions, since it takes a second to load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.reports.run_folder import evaluation_rows, retain_row, training_rows
from tif.utils.terminal import escape_controls

QUALITY_UTILITY_PLOT = "quality_utility.png"
LOSSES_PLOT = "losses.png"


def write_plots(folder: Path) -> None:
    """Write quality_utility.png and losses.png to a run folder, where it has their numbers."""
    evaluations = []
    for row in evaluation_rows(folder):
        if row.get("forget/quality") is not None and row.get("utility/model") is not None:
            evaluations.append(row)
    if evaluations:
        plot_run(folder / QUALITY_UTILITY_PLOT, evaluations, retain_row(folder))
    steps = training_rows(folder)
    names = [name for name in steps[0] if name.startswith("train/")] if steps else []
    terms = [name for name in names if name != "train/loss" and "/uw_" not in name]
    if terms:
        plot_losses(folder / LOSSES_PLOT, steps, terms)


def plot_run(
    path: Path, evaluations: Sequence[Mapping[str, Any]], retain: Mapping[str, Any]
) -> None:
    """Draw a run's forget quality against its model utility, a point for each epoch."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    x = [row["utility/model"] for row in evaluations]
    y = [row["forget/quality"] for row in evaluations]
    axes.plot(x, y, "-", color="0.7", zorder=1)
    epochs = [row["epoch"] for row in evaluations]
    points = axes.scatter(x, y, c=epochs, cmap="viridis", zorder=2)
    figure.colorbar(points, label="epoch", ticks=MaxNLocator(integer=True))
    axes.annotate("before", (x[0], y[0]), (-6, 6), textcoords="offset points", ha="right")
    axes.annotate("after", (x[-1], y[-1]), (6, -14), textcoords="offset points")
    axes.margins(x=0.1)
    _style_quality_axes(axes, retain.get("utility/model"))
    # Outside the axes, so that it never covers a point.
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def plot_losses(path: Path, steps: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> None:
    """Draw each term of the loss over the optimizer steps, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2 * len(terms)), layout="constrained")
    column = figure.subplots(len(terms), sharex=True, squeeze=False)[:, 0]
    for axes, term in zip(column, terms, strict=True):
        axes.plot([row["step"] for row in steps], [row.get(term) for row in steps])
        name = term.removeprefix("train/")
        axes.set_ylabel(name.upper() if name in ("lpl", "pl") else name)
        axes.grid(alpha=0.3)
    column[-1].set_xlabel("optimizer step")
    figure.savefig(path, dpi=150)


def plot_sweep(path: Path, results: Mapping[str, Any]) -> None:
    """Draw a sweep's runs, where they have both metrics: best epochs filled, last ones hollow.

    `results`: as `reports.sweep.collect_results` returns them.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    metrics = {"utility/model", "forget/quality"}
    runs = {name: run for name, run in results["runs"].items() if metrics <= run["last"].keys()}
    if not runs:
        return
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for i, (name, run) in enumerate(runs.items()):
        title = escape_controls(name).replace("$", r"\$")  # no formula of Matplotlib
        color, marker = colormaps["tab20"](i % 20), "osD^v<>P"[i // 20 % 8]
        for epoch, face, label in (("best", color, title), ("last", "none", None)):
            utility, quality = run[epoch]["utility/model"], run[epoch]["forget/quality"]
            bars = None
            if quality["sd"] is not None:
                # A deviation larger than the mean would leave the logarithmic axis.
                bars = [[min(quality["sd"], 0.9 * quality["mean"])], [quality["sd"]]]
            axes.errorbar(
                utility["mean"], quality["mean"], xerr=utility["sd"], yerr=bars, fmt=marker,
                color=color, markerfacecolor=face, elinewidth=0.8, label=label,
            )  # fmt: skip
    _style_quality_axes(axes, results["retain_model"].get("utility/model"))
    axes.set_title("best epoch filled, last epoch hollow; bars: deviation over seeds", fontsize=9)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)


def _style_quality_axes(axes: Any, retain_utility: float | None) -> None:
    """Label and scale the axes; mark the level 0.05 and the retain model's utility."""
    axes.axhline(0.05, linestyle=":", color="0.5", label="0.05")
    if retain_utility is not None:
        label = "retain model's utility"
        axes.axvline(retain_utility, linestyle="--", color="tab:red", label=label)
    axes.set_yscale("log")
    axes.set_ylim(top=2)
    axes.set_xlabel("model utility")
    axes.set_ylabel("forget quality (KS p-value)")
    axes.grid(alpha=0.3)
