"""Tables and texts as HTML for notebooks; every text of data or models is escaped.

Called by the `_repr_html_` of runs, evaluations and answers. Colours are the notebook's own.
"""

import html
from collections.abc import Sequence

from tif.utils.terminal import escape_controls


def escape(text: str) -> str:
    """Return a text that a notebook shows as it is: no markup, no control character."""
    return html.escape(escape_controls(text))


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table of texts; the first column is aligned at the left, numbers at the right."""
    lines = ["<table>"]
    if caption:
        lines.append(f'<caption style="text-align:left">{escape(caption)}</caption>')
    lines.append(f"<thead><tr>{_render_cells(head, 'th')}</tr></thead><tbody>")
    lines += [f"<tr>{_render_cells(row, 'td')}</tr>" for row in rows]
    return "\n".join([*lines, "</tbody></table>"])


def _render_cells(texts: Sequence[str], tag: str) -> str:
    cells = []
    for number, text in enumerate(texts):
        side = "right" if number else "left"
        cells.append(f'<{tag} dir="auto" style="text-align:{side}">{escape(text)}</{tag}>')
    return "".join(cells)


def render_texts(rows: Sequence[tuple[str, str]]) -> str:
    """Return pairs of a name and a text of any length, such as a model and its answer."""
    cells = [
        f'<tr><th style="text-align:left;vertical-align:top">{escape(name)}</th>'
        f'<td dir="auto" style="text-align:left;white-space:pre-wrap">{escape(text)}</td></tr>'
        for name, text in rows
    ]
    return "\n".join(["<table><tbody>", *cells, "</tbody></table>"])
