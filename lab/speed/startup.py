"""what=startup: seconds until a command answers help, a wrong key, or a path that is not there."""

import statistics
import subprocess
import sys
import time
from typing import Any

from lab.speed.settings import SpeedSettings
from tif.utils.terminal import track

COMMANDS = (
    '-c ""', "-m tif.fit --help", "-m tif.fit --print", "-m tif.fit trainer.max_epoch=3",
    "-m tif.fit data.batch_size=many", "-m tif.fit model.path=./nowhere", "-m tif.identify --help",
    "-m tif.evaluate --help", "-m tif.sweep --help", "-m tif.bench --help",
)  # fmt: skip
COLUMNS = {"command": "{command}", "seconds": "{seconds:.2f}"}


def measure(settings: SpeedSettings) -> list[dict[str, Any]]:
    """Return rows of command and seconds (median); the first row is Python alone."""
    rows = []
    for command in track(COMMANDS, "start-up"):
        seconds = []
        for _ in range(settings.repeats):
            start = time.perf_counter()
            words = [sys.executable, *command.split()]
            subprocess.run(words, check=False, capture_output=True)
            seconds.append(time.perf_counter() - start)
        median = round(statistics.median(seconds), 2)
        rows.append({"command": f"python {command}", "seconds": median})
    return rows
