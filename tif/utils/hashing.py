"""Short hashes: of JSON values, and of a model folder without reading its weights."""

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(what: Any) -> str:
    """Twelve hex digits of a JSON value."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def weights_print(path: str | None) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a local model's files: tells another model in the same folder without reading it."""
    folder = Path(path or "").expanduser()
    if path is None or not folder.is_dir():
        return []
    stats = [(p.name, p.stat()) for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".json")]
    return [(name, s.st_size, s.st_mtime_ns) for name, s in stats]
