"""Checks of the folders that configuration keys name, before anything is written."""

import os
from pathlib import Path

from tif.config.errors import ConfigError


def check_writable(key: str, folder: Path | str) -> None:
    """Check that a folder can be made and written to.

    Raises:
        ConfigError: If not; names the key.
    """
    path = Path(folder).absolute()
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise ConfigError(f"{key}: {path} is a file; want a folder")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{key}: {path} is not writable; give another folder")


def check_inside(folder: Path, run: Path) -> None:
    """Raise ConfigError where a folder of a run, or what is in it, is a link out of the run."""
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(run.resolve()):
            raise ConfigError(f"{path} leads out of {run}; delete it")
