"""What a run ran on: versions, commit, hardware."""

import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import tif


def environment() -> dict[str, Any]:
    """Versions, commit and hardware."""
    import torch

    names = ("torch", "lightning", "transformers", "peft", "datasets", "omegaconf", "scipy", "rouge-score")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "tif": tif.__version__,
        "commit": commit(),
        "command": " ".join(sys.argv),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "packages": {d.name: d.version for d in metadata.distributions() if d.name in names},
        "host": {"platform": platform.platform(), "cpu_threads": torch.get_num_threads(), "gpus": gpus},
    }


def commit() -> str | None:
    """Commit of the checkout that tif runs from, "-dirty" where it was changed; None outside a checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match=-"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
