"""Render pages: templates, style and scripts of this folder become one HTML file.

Numbers and titles are typeset here: signs, powers of ten, blanks that do not break.

Every value is escaped by jinja2. Data goes into <script type="application/json"> with "<" spelled
out, and the scripts show it as text. The page's policy forbids requests.
"""

import functools
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tif._version import VERSION
from tif.metrics.overall import SCORE
from tif.reports.columns import describe_metric, format_metric
from tif.reports.html.charts import ALIKE, Chart
from tif.utils.files import write_text

PACKAGE = "tif.reports.html"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_page(
    path: Path,
    template: str,
    values: dict[str, Any],
    charts: Sequence[Chart],
    samples: dict[str, Any] | None = None,
) -> None:
    """Write a page.

    Args:
        path: of the file; it is replaced in one step.
        template: name of a template of this folder.
        values: what the template shows.
        charts: what charts.js draws.
        samples: what samples.js shows; None = no sample browser.
    """
    from markupsafe import Markup

    names = ["page.js", "charts.js", *(["samples.js"] if samples else [])]
    values = values | {
        "css": Markup(read_part("colors.css") + read_part("report.css")),
        "scripts": [Markup(read_part(name)) for name in names],
        "charts_json": Markup(as_script([chart.as_json() for chart in charts])),
        "samples": samples,
        "samples_json": Markup(as_script(samples)) if samples else "",
        "version": VERSION,
    }
    page = _environment().get_template(template).render(values)
    # Half of a surrogate pair, which a model's text or a file's name may hold, has no UTF-8.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def as_script(value: Any) -> str:
    """Return JSON that can stand inside a <script>: no "<", "&" or line separator of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def pretty(value: float | None, metric: str = "") -> str:
    """Return a metric's value as it is printed: 0.847, 1.9 × 10⁻⁴, a dash for None."""
    return "–" if value is None else typeset(format_metric(metric, value))


def typeset(line: str) -> str:
    """Return a line of the terminal's with numbers as the page prints them: −0.13, 13 %."""
    line = re.sub(r"(\d[\d.]*)e([-+]\d+)", _typeset_power, line)
    line = re.sub(r"(?<![\w)-])-(?=\d)", "−", line)
    return re.sub(r"(?<=\d) ?%", "\u00a0%", line)


def _typeset_power(number: re.Match[str]) -> str:
    """Return 1.9e-04 as 1.9 × 10⁻⁴."""
    return f"{number[1]} × 10{str(int(number[2])).translate(SUPERSCRIPTS)}"


def join_arrow(title: str) -> str:
    """Return a column's title that breaks neither before its arrow nor inside ROUGE-L."""
    joined = title.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")
    return joined.replace("ROUGE-L", "ROUGE\u2011L")


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pretty": pretty, "typeset": typeset, "join_arrow": join_arrow,
        "described": describe_metric}
    environment.globals |= {"alike": ALIKE, "score": SCORE}
    return environment


@functools.cache
def read_part(name: str) -> str:
    """Return the text of a style or script of this folder."""
    return (resources.files(PACKAGE) / name).read_text(encoding="utf-8")
