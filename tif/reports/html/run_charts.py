"""The charts of one run: each is left out where the run does not have its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tif.reports.columns import QUALITY, list_trade_offs, title_of
from tif.reports.html import charts as parts
from tif.reports.html.charts import ALIKE, Chart, Guide, Mark, Series, level, line, present
from tif.reports.html.run_data import RunData
from tif.reports.html.samples import RETAIN

TERMS = {"lpl": "LPL", "pl": "PL", "retain": "retain term", "loss": "loss"}


def list_charts(run: RunData) -> list[Chart]:
    """Return the charts of the metrics, in the order of the page."""
    charts = (word_chart(run), forgetting_chart(run), ratio_chart(run), extraction_chart(run))
    return [chart for chart in charts if chart is not None]


def word_chart(run: RunData) -> Chart | None:
    """Return the picture of targeted forgetting: unwanted words fall, general words stay."""
    epochs = [row["epoch"] for row in run.rows]
    series = present([
        line("unwanted words (UW)", run.rows, "words/unwanted", "uw"),
        line("general words (GW)", run.rows, "words/general", "gw"),
        level("UW, retain model", run.retain.get("words/unwanted"), epochs, "uw"),
        level("GW, retain model", run.retain.get("words/general"), epochs, "gw"),
    ])  # fmt: skip
    caption = (
        "Probability per token of the unwanted and of the general words in the forget set’s true "
        "answers: exp of the mean log-probability, averaged over answers."
    )
    title = "Unwanted words go, general words stay"
    return _chart("words", title, caption, ("epoch", "probability"), series, y_range=(0.0, 1.0))


def forgetting_chart(run: RunData) -> Chart | None:
    """Return what was forgotten against what stays, a point an epoch."""
    for x, y in list_trade_offs():
        rows = [row for row in run.rows if row.get(x) is not None and row.get(y) is not None]
        if len(rows) > 1 or (rows and run.retain.get(x) is not None):
            return _path_chart(run, rows, x, y)
    return None


def _path_chart(run: RunData, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> Chart:
    last, marks = rows[-1]["epoch"], []
    names: dict[int, tuple[str, ...]] = {last: (f"last, epoch {last}",)}
    if run.best_epoch is not None:
        name = "chosen and last" if run.best_epoch == last else "chosen"
        names[run.best_epoch] = (f"{name}, epoch {run.best_epoch}", "star", "gw")
    names[0] = ("target", "hollow")
    for row in rows:
        if row["epoch"] in names:
            marks.append(Mark(row[x], row[y], *names[row["epoch"]]))
    aims = {QUALITY: "the upper right", "muse/privleak": "the right, at PrivLeak 0"}
    titles = title_of(x), title_of(y)
    caption = f"A point an epoch. {parts.upper_first(titles[1])} against {titles[0]}: the aim is "
    caption += f"{aims.get(y, 'the lower right')}."
    labels = [parts.name_epoch(row["epoch"]) for row in rows]
    series = (parts.path("epochs", rows, (x, y), ("muted", "points"), labels),)
    return Chart(
        "frontier", "Forgetting against usefulness", caption, *titles, series,
        list_guides(x, y, run.retain), tuple(marks), y_log=y == QUALITY,
    )  # fmt: skip


def list_guides(
    x: str, y: str, retain: Mapping[str, float | None], label: str = "retain model"
) -> tuple[Guide, ...]:
    """Return lines across a chart of two metrics: what a model that never saw the texts reaches.

    `retain`: the retain model's metrics; `label`: what the lines call it.
    """
    ends = {"x": retain.get(x), "y": retain.get(y)}
    guides = {axis: Guide(axis, value, label) for axis, value in ends.items() if value is not None}
    if y == QUALITY:
        guides["y"] = Guide("y", ALIKE, f"{ALIKE}: no longer told apart")
    elif y == "muse/privleak":
        guides.setdefault("y", Guide("y", 0.0, "a model that never saw the texts"))
    return tuple(guides.values())


def ratio_chart(run: RunData) -> Chart | None:
    """Return the distributions of truth ratios that forget quality compares."""
    if len(run.ratios) < 2 or not run.rows:
        return None
    first, last = str(run.rows[0]["epoch"]), str(run.rows[-1]["epoch"])
    named = {first: ("before", "muted", "steps"), last: ("unlearned", "uw", "steps")}
    named[RETAIN] = ("retain model", "ink", "dashed-steps")
    series = present(
        parts.distribution(name, [max(ratio, 1e-12) for ratio in run.ratios[key]], role, style)
        for key, (name, role, style) in named.items()
        if key in run.ratios
    )
    caption = (
        "Share of the forget questions whose truth ratio (wrong answers’ probability over the "
        "right one’s) is at most x. Forget quality tests whether the unlearned curve is the retain "
        "model’s: their largest vertical distance decides."
    )
    title = "Truth ratios"
    return _chart("ratios", title, caption, ("truth ratio", "share"), series, x_log=True,
        y_range=(0.0, 1.0))  # fmt: skip


def extraction_chart(run: RunData) -> Chart | None:
    """Return extraction strength over epochs on what should go and what should stay."""
    epochs = [row["epoch"] for row in run.rows]
    drawn: list[Series | None] = []
    for name, role in (("forget", "uw"), ("retain", "gw")):
        metric = f"{name}/extraction_strength"
        drawn.append(line(f"{name} set", run.rows, metric, role))
        drawn.append(level(f"{name} set, retain model", run.retain.get(metric), epochs, role))
    caption = (
        "Share of an answer, from its end, that the model predicts token by token without a "
        "mistake, averaged over answers."
    )
    title, axes = "Extraction strength", ("epoch", "share of the answer")
    return _chart("extraction", title, caption, axes, present(drawn), y_range=(0.0, 1.0))


def loss_charts(run: RunData) -> list[Chart]:
    """Return a small chart for each term of the loss over the optimizer steps."""
    charts, axes = [], ("optimizer step", "")
    for name in run.steps[0] if run.steps else ():
        section, _, term = name.partition("/")
        series = line(term, run.steps, name, "ink", "step")
        if section == "train" and not term.startswith("uw_") and series:
            title = TERMS.get(term, term)
            charts.append(Chart(f"loss-{term}", title, "", *axes, (series,), small=True))
    return charts


def _chart(
    name: str, title: str, caption: str, axes: tuple[str, str], series: tuple[Series, ...],
    **options: Any,
) -> Chart | None:  # fmt: skip
    """Return a chart; None where nothing but levels and single points would be drawn."""
    if all(item.style.startswith("dashed") or len(item.x) == 1 for item in series):
        return None
    return Chart(name, title, caption, *axes, series, **options)
