"""Which metrics reports show, under which titles, and how a number is written.

All of it is read from the registry of metrics. Used by every table of this room.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from tif.metrics.registry import ANY_SET, all_metrics, find_metric
from tif.records.types import PARAPHRASED
from tif.utils.terminal import escape_controls

QUALITY = "forget/quality"  # a p-value: axes and tables treat it in their own way


def list_columns() -> list[str]:
    """Return the stable names of the metrics that tables of runs show, in their order."""
    places: dict[str, int] = {}
    for metric in all_metrics().values():
        for group, place in metric.columns.items():
            if metric.name.startswith((f"{group}/", ANY_SET)):
                places[f"{group}/{metric.key}"] = place
    return sorted(places, key=lambda name: places[name])


def list_main_columns() -> list[str]:
    """Return those of `list_columns` that are shown where only few numbers fit."""
    columns = []
    for name in list_columns():
        metric = find_metric(name)
        if metric is not None and name.partition("/")[0] in metric.main:
            columns.append(name)
    return columns


def list_trade_offs() -> list[tuple[str, str]]:
    """Return pairs of metrics to draw: usefulness and forgetting; the best one first."""
    pairs = []
    for name in list_columns():
        metric = find_metric(name)
        if metric is not None and metric.against not in ("", name):
            pairs.append((metric.against, name))
    return pairs


def title_of(name: str) -> str:
    """Return a metric's title without its direction; the stable name where it is unknown."""
    metric = find_metric(name)
    if metric is None:
        return name
    title, set_name = metric.short or metric.title, name.partition("/")[0]
    is_of_any_set = metric.name.startswith(ANY_SET)
    return f"{set_name.replace('_', ' ')} {title}" if is_of_any_set else title


def describe_metric(name: str) -> str:
    """Return what a metric is called in a sentence: "probability on the forget set"."""
    metric = find_metric(name)
    if metric is None:
        return name
    set_name = name.partition("/")[0].replace("_", " ")
    is_of_any_set = metric.name.startswith(ANY_SET)
    return f"{metric.title} on the {set_name} set" if is_of_any_set else metric.title


def column_title(name: str) -> str:
    """Return a metric's title with the direction in which it should go: "forget prob. ↓"."""
    metric = find_metric(name)
    return f"{title_of(name)} {metric.arrow(name)}".strip() if metric else name


def role_of(name: str) -> str:
    """Return the role of a metric's colour: "gw" for what should stay, else "uw"."""
    metric = find_metric(name)
    stays = metric is not None and metric.arrow(name) == "↑" and not metric.needs_retain
    return "gw" if stays else "uw"


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns for which at least one of the rows has a value."""
    known_metrics = set().union(*rows)
    return {name: column_title(name) for name in list_columns() if name in known_metrics}


def format_metric(name: str, value: float | None) -> str:
    """Return a metric's value with the digits that its registration asks for."""
    metric = find_metric(name)
    return format_number(value, metric.decimals if metric else 3)


def format_number(value: float | None, decimals: int = 3) -> str:
    """Return three decimals; a power of ten where these would be 0.000; "-" for None.

    From a thousand on there are none.
    """
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    is_tiny = value != 0 and abs(value) < 0.001
    return f"{value:.1e}" if is_tiny else f"{value:.{decimals}f}"


def format_interval(interval: Sequence[float], name: str = "") -> str:
    """Return "low – high", with the digits of metric `name`."""
    low, high = interval
    return f"{format_metric(name, low)} – {format_metric(name, high)}"


def describe_groups(groups: Mapping[str, Mapping[str, int]]) -> str:
    """Return what intervals are over, by set: "forget 20 authors, world_facts 117 questions".

    A set that is asked again in other words is left out: it is over the same.
    """
    asked_again = {name for name in groups if groups.get(name.removesuffix(PARAPHRASED)) and
                   name.endswith(PARAPHRASED)}  # fmt: skip
    shown = [name for name in groups if name not in asked_again]
    return ", ".join(f"{name} {count_units(groups[name])}" for name in shown)


def count_units(units: Mapping[str, int]) -> str:
    """Return "1 author", "20 authors" or "3 documents and 5 questions"."""
    counts = [f"{count} {unit}{'s' * (count != 1)}" for unit, count in units.items()]
    return " and ".join(counts)


def format_mean(name: str, value: Mapping[str, Any] | None) -> str:
    """Return a metric's "mean ± deviation", the deviation only where there is one."""
    if value is None:
        return "-"
    mean, deviation = format_metric(name, value["mean"]), value["sd"]
    if deviation is None:
        return mean
    tiny = f"{deviation:.0e}"  # one digit is enough
    return f"{mean} ± {tiny if 0 < deviation < 0.001 else format_metric(name, deviation)}"


def terminal_table(head: Sequence[str], title: Any = None, **options: Any) -> Table:
    """Return a table without lines: names in its first column, numbers in the others.

    `options`: those of each column, see `rich.table.Table.add_column`.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for i, column in enumerate(head):
        table.add_column(column, justify="right" if i else "left", **options)
    return table


def escape_markdown(text: str) -> str:
    """Return a name of a user's as Markdown shows it: no markup, no HTML, no control character."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", escape_controls(text).replace("\n", " "))


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its header."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join("| " + " | ".join(map(escape_markdown, row)) + " |\n" for row in rows)
