"""what=startup: seconds until a command answers help, a wrong key, or a path that is not there."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tif.bench.settings import BenchSettings
from tif.bench.table import make_plain_table
from tif.utils.terminal import track

COMMANDS = (
    "tif.fit --help",
    "tif.fit --print",
    "tif.fit trainer.max_epoch=3",
    "tif.fit data.batch_size=many",
    "tif.fit model.path=./nowhere",
    "tif.identify --help",
    "tif.evaluate --help",
    "tif.sweep --help",
    "tif.bench --help",
)


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return rows of command, seconds (median) and python: the seconds of Python alone."""
    python_alone = _median_seconds(["-c", ""], settings.repeats)
    rows = []
    for command in track(COMMANDS, "start-up"):
        seconds = _median_seconds(["-m", *command.split()], settings.repeats)
        rows.append({"command": f"python -m {command}", "python": python_alone, "seconds": seconds})
    return rows


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal."""
    table = make_plain_table(rows, {"command": "{command}", "seconds": "{seconds:.2f}"})
    table.caption = f"Python alone {rows[0]['python']:.2f}"
    return table


def _median_seconds(words: Sequence[str], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=False, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 2)
