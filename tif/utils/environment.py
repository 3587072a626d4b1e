"""What a run runs on: versions, commit, hardware. Written into env.json of every run folder."""

import contextlib
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from tif._version import VERSION
from tif.utils.tested_versions import read_departures

PACKAGES = "torch lightning transformers peft datasets omegaconf scipy rouge-score"


def describe_environment() -> dict[str, Any]:
    """Return versions, commit, command and hardware as a JSON value."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    host = {"platform": platform.platform(), "cpu_threads": torch.get_num_threads(), "gpus": gpus}
    return {
        "tif": VERSION,
        "commit": read_commit(),
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": _read_versions(PACKAGES.split()),
        "departs_from_tested": read_departures(),
        "host": host,
    }


def _read_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    versions = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def read_commit() -> str | None:
    """Return the git commit of tif's checkout, "-dirty" where files differ; None outside one.

    A package that is installed below somebody's own repository is no part of it.
    """
    git = partial(subprocess.check_output, cwd=Path(__file__).parent, text=True, timeout=10)
    try:
        git(["git", "ls-files", "--error-unmatch", Path(__file__).name], stderr=subprocess.DEVNULL)
        words = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match=-"]
        return git(words, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.SubprocessError):
        return None
