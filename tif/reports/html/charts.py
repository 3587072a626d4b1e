"""Charts as data: what a picture shows, without how it is drawn.

charts.js draws them in the report, figures.py with Matplotlib for a paper. Both read the roles of
colours from here: "uw" what should go, "gw" what should stay, "ink" and "muted" neither.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_POINTS = 400  # of a line; longer ones are averaged in parts of equal length
ALIKE = 0.05  # forget quality from which the test no longer tells the model from the retain model
PALETTE = 16  # colours c0, c1, ... of report.css and figures.py


@dataclasses.dataclass(frozen=True)
class Series:
    """One line."""

    name: str  # in the legend
    # x and y: its points, without gaps
    x: tuple[float, ...]
    y: tuple[float, ...]
    role: str = "ink"  # of its colour: uw, gw, ink, muted, or c0, c1, ... where runs are compared
    style: str = "line"  # line, dashed, steps, dashed-steps, points (on a line) or open-points
    labels: tuple[str, ...] = ()  # of the points, for the tooltip; empty = the x value


@dataclasses.dataclass(frozen=True)
class Guide:
    """A straight line across the chart at a value of an axis."""

    axis: str
    at: float
    name: str
    role: str = "muted"


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point with its name; shape: hollow, filled or star."""

    x: float
    y: float
    name: str
    shape: str = "filled"
    role: str = "ink"


@dataclasses.dataclass(frozen=True)
class Chart:
    """A picture: series, guides and marks over two axes; a small one stands among its like."""

    name: str
    title: str
    caption: str
    x: str
    y: str
    series: tuple[Series, ...]
    guides: tuple[Guide, ...] = ()
    marks: tuple[Mark, ...] = ()
    x_log: bool = False
    y_log: bool = False
    y_range: tuple[float, float] | None = None
    small: bool = False

    @property
    def has_legend(self) -> bool:
        """Return whether the page names its lines; the text above small charts does it once."""
        return len(self.series) > 1 and not self.small

    def as_json(self) -> dict[str, Any]:
        """Return what charts.js reads, numbers with four digits."""
        return _short(dataclasses.asdict(self))


def _short(value: Any) -> Any:
    """Return a JSON value with four digits of each number; what is not finite becomes null."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    return value


def line(
    name: str, rows: Sequence[Mapping[str, Any]], metric: str, role: str, x: str = "epoch"
) -> Series | None:
    """Return a metric over epochs (or steps); None where no row has it."""
    known = [row for row in rows if row.get(metric) is not None]
    if not known:
        return None
    xs, ys = _thin([float(row[x]) for row in known], [float(row[metric]) for row in known])
    return Series(name, xs, ys, role)


def path(
    name: str, rows: Sequence[Mapping[str, Any]], axes: Sequence[str], look: tuple[str, str],
    labels: Sequence[str],
) -> Series:  # fmt: skip
    """Return two metrics against each other, a point a row; `look`: role and style."""
    xs, ys = (tuple(row[metric] for row in rows) for metric in axes)
    return Series(name, xs, ys, *look, tuple(labels))


def level(name: str, value: float | None, xs: Sequence[float], role: str) -> Series | None:
    """Return a dashed level line over the range of `xs`, as the retain model's value."""
    if value is None or not xs:
        return None
    ends = (float(min(xs)), float(max(xs)))
    return Series(name, ends, (float(value), float(value)), role, "dashed")


def distribution(name: str, values: Iterable[float], role: str, style: str) -> Series | None:
    """Return the share of values up to x as steps; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    shares = [(i + 1) / len(ordered) for i in range(len(ordered))]
    stride = max(1, len(ordered) // MAX_POINTS)
    picked = sorted({*range(0, len(ordered), stride), len(ordered) - 1})
    xs = (ordered[0], *(ordered[i] for i in picked))
    return Series(name, xs, (0.0, *(shares[i] for i in picked)), role, style)


def present(series: Iterable[Series | None]) -> tuple[Series, ...]:
    """Return the series that there are."""
    return tuple(item for item in series if item is not None)


def look_of_run(number: int) -> tuple[str, str]:
    """Return role and style of one of several runs: sixteen colours, then with open points."""
    return f"c{number % PALETTE}", "open-points" if number // PALETTE % 2 else "points"


def name_epoch(epoch: int) -> str:
    """Return what an epoch's model is called."""
    return "before" if epoch == 0 else f"epoch {epoch}"


def upper_first(title: str) -> str:
    """Return a title with its first letter in upper case, and KnowMem as it is."""
    return title[:1].upper() + title[1:]


def _thin(
    xs: Sequence[float], ys: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    size = math.ceil(len(xs) / MAX_POINTS)
    if size <= 1:
        return tuple(xs), tuple(ys)
    thin_x, thin_y = [], []
    for start in range(0, len(xs), size):
        part_x, part_y = xs[start : start + size], ys[start : start + size]
        thin_x.append(sum(part_x) / len(part_x))
        thin_y.append(sum(part_y) / len(part_y))
    return tuple(thin_x), tuple(thin_y)
