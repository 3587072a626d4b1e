"""What a run gives to a notebook: answers, audits and reports, shown as HTML.

Every text of data or models is escaped. Colours are the notebook's own.
"""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.audit.tables import HEADER, audit_lines, list_verdicts
from tif.utils.terminal import escape_controls


@dataclasses.dataclass(frozen=True)
class Answers:
    """What two models answer to a question: before (the target model) and after unlearning."""

    question: str
    target: str
    unlearned: str

    def __str__(self) -> str:
        return f"{self.question}\n    target:    {self.target}\n    unlearned: {self.unlearned}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return render_table([], [[name, text] for name, text in vars(self).items()])


@dataclasses.dataclass(frozen=True)
class Report:
    """The page of a run, `path`, which a notebook shows in a frame."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        name = escape(str(self.path))
        frame = 'width="100%" height="700" style="border:1px solid" sandbox="allow-scripts"'
        return f'<a href="{name}">{name}</a><br><iframe src="{name}" {frame}></iframe>'


class Audit:
    """The results of attacks on the target, the unlearned and the retain model.

    Attributes:
        content: of audit.json.
        folder: where page and curves are.
        verdicts: a sentence for each attack.
    """

    def __init__(self, content: dict[str, Any], folder: Path) -> None:
        self.content, self.folder = content, folder
        self.verdicts = list_verdicts(content)

    def __repr__(self) -> str:
        return "\n".join(self.verdicts.values())

    def _repr_html_(self) -> str:
        lines = []
        for name in self.content["attacks"]:
            lines += audit_lines(self.content, name)
        verdicts = [f"<li>{escape(verdict)}</li>" for verdict in self.verdicts.values()]
        table = render_table(HEADER, lines, f"audit, {self.folder}")
        return f"{table}<ul>{''.join(verdicts)}</ul>"


def escape(text: str) -> str:
    """Return a text that a notebook shows as it is: no markup, no control character."""
    return html.escape(escape_controls(text))


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table of texts; below a head, numbers stand at the right of their columns."""
    lines = ["<table>"]
    if caption:
        lines.append(f'<caption style="text-align:left">{escape(caption)}</caption>')
    for row in [head, *rows] if head else rows:
        cells = []
        for number, text in enumerate(row):
            tag = "th" if row is head else "td"
            style = f"text-align:{'right' if head and number else 'left'};white-space:pre-wrap"
            cells.append(f'<{tag} dir="auto" style="{style}">{escape(text)}</{tag}>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>"])
