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
