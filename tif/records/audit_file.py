"""Where the audit of a model stands, and how it is read: for evaluation/audit.py and reports."""

from pathlib import Path
from typing import Any

from tif.records.json_values import load_json

FOLDER = "audit"  # in a run folder, beside the model
FILE = "audit.json"


def read_audit(folder: Path) -> dict[str, Any] | None:
    """Return the content of audit.json in a folder; None where it is missing or damaged."""
    path = folder / FILE
    try:
        content = load_json(path) if path.is_file() else None
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "attacks" in content else None
