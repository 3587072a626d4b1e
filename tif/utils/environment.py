"""What a run runs on: versions, commit, hardware. Written into env.json of every run folder."""

import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import tif

PACKAGES = "torch lightning transformers peft datasets omegaconf scipy rouge-score"


def describe_environment() -> dict[str, Any]:
    """Return versions, commit, command and hardware as a JSON value."""
    import torch

    names = PACKAGES.split()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    host = {"platform": platform.platform(), "cpu_threads": torch.get_num_threads(), "gpus": gpus}
    return {
        "tif": tif.__version__,
        "commit": read_commit(),
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {d.name: d.version for d in metadata.distributions() if d.name in names},
        "host": host,
    }


def read_commit() -> str | None:
    """Return the git commit of tif's checkout, "-dirty" where files differ; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match=-"]
    folder = Path(__file__).parent
    try:
        git = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip()
