"""Checks of the folders that configuration keys name."""

import os
from pathlib import Path

from tif.config.errors import ConfigError


def check_writable(key: str, folder: Path | str) -> None:
    """Stop where a folder can neither be made nor written to.

    Raises:
        ConfigError: Naming the key.
    """
    folder = Path(folder).absolute()
    path = next(path for path in (folder, *folder.parents) if path.exists())
    if not path.is_dir():
        raise ConfigError(f"{key}: {path} is a file; want a folder")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{key}: {path} is not writable; give another folder")
