"""Writing files so that a killed run leaves the old one or the new one, never half."""

import os
from pathlib import Path


def write_text(path: Path | str, text: str) -> None:
    """Replace the file's content at once (UTF-8); the folder must exist."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Make new and changed names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
