"""Short hashes that name cached files: of JSON values, and of a model folder without its weights.

Called where a cache must notice that its inputs changed (spans, records, reference scores).
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def hash_json(value: Any) -> str:
    """Return twelve hex digits that depend on a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def list_model_files(path: str | None) -> list[tuple[str, int, int]]:
    """Return name, size and change time of a local model's files; nothing for a hub name."""
    folder = Path(os.path.expanduser(path or ""))
    if not path or not folder.is_dir():
        return []
    files = []
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json"):
            stat = file.stat()
            files.append((file.name, stat.st_size, stat.st_mtime_ns))
    return files
