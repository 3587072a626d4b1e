"""The report's charts as SVG and PNG files for a paper, drawn by Matplotlib from the same data.

Matplotlib is imported inside functions, since it takes a second to load.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config.files import check_inside
from tif.reports.html.charts import Chart, Guide, Series
from tif.reports.html.page import read_part
from tif.utils.terminal import escape_controls

# Of light mode.
COLORS = dict(re.findall(r"--(\w+): (#\w{6})", read_part("colors.css").partition("}")[0]))
MARKERS = {"hollow": "o", "filled": "o", "star": "*"}
# Points right of and above a mark, and which end of its name is there.
SIDES = (
    (6, -10, "left"), (6, 4, "left"), (-6, -10, "right"), (-6, 4, "right"), (6, -20, "left"),
    (6, 14, "left"), (-6, -20, "right"), (-6, 14, "right"), (6, -30, "left"), (6, 24, "left"),
)  # fmt: skip
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tif",  # the same chart gives the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
LEGEND_WIDTH, LEGEND_HANDLE = 70, 7  # in letters: of a figure, and of a line before its name
FORMATS = ("svg", "png")
PANELS = 4  # beside each other in one figure
FOLDER = "figures"  # beside the report


def write_figures(folder: Path, charts: Sequence[Chart]) -> list[Path]:
    """Write <folder>/<chart>.svg and .png for each chart; return their paths.

    Raises:
        ConfigError: If the folder is a link out of the one that it is in.
    """
    import matplotlib

    check_inside(folder, folder.parent)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(STYLE):
        for chart in charts:
            figure = draw_chart(chart)
            # The name may come from a file of somebody else's run.
            name = re.sub(r"[^\w.-]", "_", chart.name)
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                metadata = {"Date": None} if suffix == "svg" else None
                figure.savefig(path, dpi=200, metadata=metadata)
                paths.append(path)
    return paths


@dataclasses.dataclass(frozen=True)
class Label:
    """A name in a picture, and the places where it may stand, the best first."""

    text: Any  # Matplotlib's annotation
    # each a point, an offset from it in points, and which end of the name is there
    places: Sequence[tuple[tuple[float, float], tuple[float, float], str]]


def draw_chart(chart: Chart) -> Any:
    """Return a Matplotlib figure of a chart; a legend makes it higher, not its axes lower."""
    from matplotlib.figure import Figure

    names = {series.name for series in chart.series}
    has_legend = len(names) > 1 and not names <= {mark.name for mark in chart.marks}
    longest = max(map(len, names), default=0)
    columns = max(1, min(3, LEGEND_WIDTH // (longest + LEGEND_HANDLE)))
    rows = -(-len(names) // columns) if has_legend else 0
    figure = Figure(figsize=(4.6, 3.2 + 0.18 * max(rows - 2, 0)), layout="constrained")
    labels = _draw_on(figure.subplots(), chart)
    if has_legend:
        figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=8)
    _spread_labels(figure, [labels])
    return figure


def write_panels(path: Path, charts: Sequence[Chart]) -> None:
    """Write one picture of several charts with the same series, side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(len(charts), PANELS)
    rows = -(-len(charts) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.0 * columns, 2.5 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        labels_by_axes = []
        for axes, chart in zip(panels, charts, strict=False):
            labels_by_axes.append(_draw_on(axes, chart))
            axes.set_title(_text(chart.title), fontsize=8)
            axes.set_ylabel("")
        for axes in panels[len(charts) :]:
            axes.set_visible(False)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        _spread_labels(figure, labels_by_axes)
        figure.savefig(path, dpi=150)


def _draw_on(axes: Any, chart: Chart) -> list[Label]:
    """Draw a chart and return the names of its guides and marks, which `_spread_labels` places."""
    for series in chart.series:
        _draw_series(axes, series)
    labels = [_draw_guide(axes, guide) for guide in chart.guides]
    for mark in chart.marks:
        face = "white" if mark.shape == "hollow" else COLORS[mark.role]
        size = 11 if mark.shape == "star" else 6
        axes.plot(mark.x, mark.y, MARKERS[mark.shape], markersize=size, zorder=3,
            markerfacecolor=face, markeredgecolor=COLORS[mark.role])  # fmt: skip
        text = axes.annotate(_text(mark.name), (mark.x, mark.y), SIDES[0][:2],
            textcoords="offset points", fontsize=8, color=COLORS[mark.role])  # fmt: skip
        places = [((mark.x, mark.y), (right, up), side) for right, up, side in SIDES]
        labels.append(Label(text, places))
    axes.set_xlabel(_text(chart.x))
    axes.set_ylabel(_text(chart.y or chart.title))
    axes.set_xscale("log" if chart.x_log else "linear")
    axes.set_yscale("log" if chart.y_log else "linear")
    if not chart.y_log:  # as many ticks at any height: the layout leaves room for their labels
        axes.locator_params(axis="y", nbins=7)
    if chart.y_range:
        axes.set_ylim(*chart.y_range)
    return labels


def _draw_guide(axes: Any, guide: Guide) -> Label:
    """Draw a guide and return its name, which may stand at both ends and in the middle."""
    is_x = guide.axis == "x"
    draw_line = axes.axvline if is_x else axes.axhline
    draw_line(guide.at, linestyle="--", linewidth=1, color=COLORS[guide.role])
    places: list[tuple[tuple[float, float], tuple[float, float], str]] = []
    if is_x:
        transform, sides = axes.get_xaxis_transform(), ((4, "left"), (-4, "right"))
        for height, (right, side) in itertools.product((0.96, 0.04, 0.5), sides):
            places.append(((guide.at, height), (right, 0), side))
    else:
        transform, ends = axes.get_yaxis_transform(), ((0.01, "left"), (0.99, "right"))
        for (left, side), up in itertools.product((*ends, (0.5, "center")), (6, -6)):
            places.append(((left, guide.at), (0, up), side))
    text = axes.annotate(_text(guide.name), *places[0][:2], xycoords=transform, va="center",
        textcoords="offset points", fontsize=7, color=COLORS["muted"])  # fmt: skip
    text.set_in_layout(False)
    return Label(text, places)


def _spread_labels(figure: Any, labels_by_axes: Sequence[Sequence[Label]]) -> None:
    """Move each name to where it covers least of other names, of points and lines."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # the layout moves the axes
    for labels in filter(None, labels_by_axes):
        axes, taken = labels[0].text.axes, []
        for line in axes.lines:
            if line.get_marker() != "None":
                for x, y in line.get_transform().transform(line.get_xydata()):
                    taken.append(Bbox.from_extents(x - 5, y - 5, x + 5, y + 5))
        paths = [line.get_path().transformed(line.get_transform()) for line in axes.lines]
        for label in labels:
            boxes: list[tuple[float, int, Any]] = []
            for place in label.places:
                box = _put(label.text, *place)
                hidden = sum(_shared_area(box, other) for other in taken)
                area = box.width * box.height
                outside = area - _shared_area(box, axes.bbox)
                # a name on a line can still be read, so it counts less than one on another name
                crossed = sum(path.intersects_bbox(box, filled=False) for path in paths)
                boxes.append((hidden + outside + crossed * area / 4, len(boxes), box))
            _, best, box = min(boxes, key=lambda item: item[:2])
            _put(label.text, *label.places[best])
            taken.append(box)


def _put(text: Any, point: tuple[float, float], offset: tuple[float, float], side: str) -> Any:
    """Move a name to a place and return the box that it then covers, in pixels."""
    text.xy = point
    text.set(position=offset, horizontalalignment=side)
    return text.get_window_extent()


def _shared_area(a: Any, b: Any) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(width, 0) * max(height, 0))


def _draw_series(axes: Any, series: Series) -> None:
    line_style = "--" if series.style.startswith("dashed") else "-"
    marker = "o" if series.style.endswith("points") else None
    color = COLORS[series.role]
    face = "white" if series.style == "open-points" else color
    is_point = marker is not None and len(series.x) == 1
    if is_point:
        line_style = "none"
    steps = "steps-post" if series.style.endswith("steps") else "default"
    axes.plot(series.x, series.y, line_style, marker=marker, markersize=5 if is_point else 3,
        drawstyle=steps, color=color, markerfacecolor=face, label=_text(series.name))  # fmt: skip


def _text(text: str) -> str:
    """Return a text that Matplotlib takes for no formula."""
    return escape_controls(text).replace("$", r"\$")
