"""The audit's part of a run's report; shown where `tif audit` left its results in the folder."""

from pathlib import Path
from typing import Any

from tif.records.json_values import load_json
from tif.reports.audit import HEADER, audit_lines, list_verdicts
from tif.utils.files import DamagedFile

PLACE = Path("audit") / "audit.json"


def read_audit_section(folder: Path) -> dict[str, Any] | None:
    """Return verdicts, head and rows of a run's audit; None where there is none.

    Raises:
        DamagedFile: If its file cannot be read; one line with what to delete.
    """
    path = folder / PLACE
    if not path.exists():
        return None
    try:
        content = load_json(path)
        rows = []
        for attack in content["attacks"]:
            for i, line in enumerate(audit_lines(content, attack)):
                cells = [{"text": text, "note": ""} for text in line]
                rows.append({"kind": "best" if i == 0 else "", "cells": cells})
        verdicts = list(list_verdicts(content).values())
    except (OSError, KeyError, TypeError, ValueError) as error:
        problem = f"{path}: no results of an audit ({error!r:.80})"
        raise DamagedFile(f"{problem}; delete {path} to see what is left") from None
    return {"verdicts": verdicts, "head": list(HEADER), "rows": rows}
