"""`Audit`: what attacks got back from a run's model, which a notebook shows as a table."""

from pathlib import Path
from typing import Any

from tif.api import html
from tif.audit.tables import HEADER, audit_lines, list_verdicts


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
        verdicts = [f"<li>{html.escape(verdict)}</li>" for verdict in self.verdicts.values()]
        table = html.render_table(HEADER, lines, f"audit, {self.folder}")
        return f"{table}<ul>{''.join(verdicts)}</ul>"


def run_audit(folder: Path, words: list[str]) -> Audit:
    """Make the audit that `tif audit FOLDER WORDS` makes, and write its page.

    Raises:
        ConfigError: With one line for each problem, before weights load.
    """
    from tif.audit import run_attacks as audit
    from tif.audit.page_section import refresh_report
    from tif.audit.run import plan_run_audit
    from tif.audit.tables import write_page
    from tif.utils.terminal import quiet_libraries

    quiet_libraries()
    plan = plan_run_audit(folder, words)
    inputs = audit.plan_audit(plan)
    content = audit.run_attacks(inputs)
    place = inputs.subjects["unlearned"].folder
    write_page(place, audit.write_audit(place, content))
    refresh_report(folder)
    return Audit(content, place)
