"""The report's charts as pictures for a paper."""

import dataclasses
import itertools
import re
import xml.etree.ElementTree
from importlib import resources

import matplotlib.image
import numpy as np
import pytest

from tests.support.report_runs import write_run
from tif.reports.html.charts import PALETTE, Chart, Guide, Mark, Series, line, look_of_run
from tif.reports.html.figures import COLORS, draw_chart, write_figures
from tif.reports.html.run_report import write_run_report

CHART = Chart(
    "a", "A", "", "x $1$", "y",
    (Series("s", (0.0, 1.0), (0.1, 1.0), "uw"),
     Series("t", (0.0, 1.0), (0.5, 0.5), "gw", "dashed")),
    (Guide("y", 0.05, "guide"),), (Mark(1.0, 1.0, "last", "star"),), y_log=True,
)  # fmt: skip


def test_a_figure_has_the_charts_lines_and_scales():
    (axes,) = draw_chart(CHART).axes
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 0.1], [1.0, 1.0]]
    assert axes.lines[1].get_linestyle() == "--"
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == r"x \$1\$"  # no formula
    assert axes.lines[3].get_marker() == "*"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("y_log", [False, True])
def test_the_names_of_marks_that_are_near_each_other_cover_neither_names_nor_marks(y_log):
    near = [(1.0, 1.0), (1.0, 0.99), (0.999, 1.0), (0.5, 0.5), (0.501, 0.501), (0.0, 0.1)]
    marks = tuple(Mark(x, y, f"name {i}", "filled", "c0") for i, (x, y) in enumerate(near))
    (axes,) = draw_chart(dataclasses.replace(CHART, marks=marks, guides=(), y_log=y_log)).axes
    boxes = [text.get_window_extent() for text in axes.texts]
    points = axes.transData.transform(near)
    assert [text.get_text() for text in axes.texts] == [mark.name for mark in marks]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert all(axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) for box in boxes)


@pytest.mark.parametrize(
    ("x", "points"), [(1.0, [(0.0, 0.05), (1.0, 1.0)]), (0.0, [(0.4, 0.05), (0.5, 1.0)])]
)
def test_the_names_of_guides_are_whole_and_cover_no_other_name(x, points):
    marks = tuple(Mark(*point, f"name {i}") for i, point in enumerate(points))
    guides = (
        Guide("x", x, "retain model, mean of 6"),
        Guide("y", 0.05, "0.05: no longer told apart"),
    )
    lines = (Series("run", (0.0, 1.0), (0.05, 1.0), "c0"),)
    figure = draw_chart(Chart("a", "A", "", "x", "y", lines, guides, marks, y_log=True))
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts[:2]] == [guide.name for guide in guides]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) for box in boxes)
    assert all(figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1) for box in boxes)


def test_thirty_two_runs_look_different():
    looks = [look_of_run(i) for i in range(32)]
    assert len(set(looks)) == 32
    assert len({COLORS[role] for role, _ in looks}) == PALETTE == 16
    series = tuple(Series(f"run{i}", (i,), (i,), *look, ()) for i, look in enumerate(looks))
    figure = draw_chart(Chart("a", "A", "", "x", "y", series))
    (axes,) = figure.axes
    drawn = {(line.get_color(), line.get_markerfacecolor()) for line in axes.lines}
    assert len(drawn) == 32


def test_the_page_and_the_figures_have_the_same_colours():
    css = (resources.files("tif") / "reports" / "html" / "colors.css").read_text()
    light, dark, dark_by_default = re.split(r":root[^{]*\{", css)[1:4]
    for block in (light, dark, dark_by_default):
        values = dict(re.findall(r"--(\w+): (#\w{6})", block.split("}")[0]))
        colors = [values[name] for name in COLORS if re.fullmatch(r"c\d+", name)]
        assert len(set(colors)) == 16
    values = dict(re.findall(r"--(\w+): (#\w{6})", light.split("}")[0]))
    assert values == COLORS


def test_a_legend_of_many_runs_leaves_the_axes_their_height():
    def height(count):
        series = tuple(
            Series(f"a_run_of_{i}", (i, i + 1), (0, 1), "c0", "points") for i in range(count)
        )
        figure = draw_chart(Chart("a", "A", "", "x", "y", series))
        figure.draw_without_rendering()
        return figure.axes[0].bbox.height

    assert height(24) == pytest.approx(height(6), rel=0.05)


def test_a_name_stands_beside_the_line_that_leads_to_its_mark():
    lines = (Series("a", (0.0, 1.0), (0.5, 0.5), "c0"), Series("b", (0.0, 1.0), (0.2, 0.9), "c1"))
    marks = (Mark(0.0, 0.5, "first name"), Mark(1.0, 0.5, "last name"), Mark(0.0, 0.2, "steep"))
    (axes,) = draw_chart(Chart("a", "A", "", "x", "y", lines, (), marks)).axes
    for text, drawn in itertools.product(axes.texts, axes.lines):
        pixels = drawn.get_transform().transform(drawn.get_xydata())
        steps = np.linspace(0, 1, 500)[:, None]
        path = pixels[0] * (1 - steps) + pixels[-1] * steps
        assert not any(text.get_window_extent().contains(*point) for point in path), text.get_text()


def test_no_label_is_cut_off_where_a_legend_changes_the_height(tmp_path):
    points = {"gold": (29.6, 0.019), "causal_lm": (24.64, 0.092), "masked_lm": (25.3, 0.174)}
    series = tuple(Series(name, (x,), (y,), "c0", "points") for name, (x, y) in points.items())
    write_figures(tmp_path, [Chart("book", "", "", "VerbMem", "UW extracted", series)])
    pixels = matplotlib.image.imread(tmp_path / "book.png")[..., :3]
    assert pixels[:, :3].min() == 1.0  # white at the left edge
    assert pixels.min() < 0.2


def test_every_chart_of_a_run_becomes_an_svg_with_text_and_a_png(tmp_path):
    rows = [
        {"forget/quality": 1e-3, "utility/model": 0.5},
        {"forget/quality": 0.1, "utility/model": 0.4},
    ]
    _, charts = write_run_report(write_run(tmp_path / "run", epochs=2, metrics=rows))
    paths = write_figures(tmp_path / "figures", charts)
    assert {path.name for path in paths} == {
        f"{name}.{suffix}"
        for name in ("words", "frontier", "ratios", "loss-loss", "loss-lpl")
        for suffix in ("svg", "png")
    }  # fmt: skip
    svg = xml.etree.ElementTree.parse(tmp_path / "figures" / "frontier.svg")
    texts = {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"model utility", "forget quality", "last, epoch 1"} <= texts
    assert (tmp_path / "figures" / "words.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_line_is_averaged_in_parts():
    rows = [{"step": i, "train/loss": float(i % 2)} for i in range(1000)]
    series = line("loss", rows, "train/loss", "ink", "step")
    assert len(series.x) == 334  # parts of three
    assert series.x[0] == 1.0
    assert series.y[0] == 1 / 3
    assert line("loss", rows, "train/lpl", "ink", "step") is None
