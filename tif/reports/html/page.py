"""Render pages: templates, style and scripts of this folder become one HTML file.

Every value is escaped by jinja2. Data goes into <script type="application/json"> with "<" spelled
out, and the scripts show it as text. The page's policy forbids requests.
"""

import functools
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from tif._version import VERSION
from tif.reports.html.charts import Chart
from tif.utils.files import write_text

PACKAGE = "tif.reports.html"


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
        "css": Markup(_read("report.css")),
        "scripts": [Markup(_read(name)) for name in names],
        "charts_json": Markup(as_script([chart.as_json() for chart in charts])),
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


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read(name: str) -> str:
    return (resources.files(PACKAGE) / name).read_text(encoding="utf-8")
