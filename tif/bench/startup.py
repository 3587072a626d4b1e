"""what=startup: seconds until a command answers: help, a wrong key, a path that is not there."""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from tif.bench.command import Bench

QUESTIONS = (
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


def rows(cfg: "Bench") -> list[dict[str, Any]]:
    """A row a command line: seconds (median), and those of Python alone."""
    from tif.utils.terminal import track

    empty = statistics.median(_seconds([sys.executable, "-c", ""]) for _ in range(cfg.repeats))
    return [
        {"command": f"python -m {words}", "python": round(empty, 2),
         "seconds": round(statistics.median(_seconds([sys.executable, "-m", *words.split()])
                                            for _ in range(cfg.repeats)), 2)}
        for words in track(QUESTIONS, "start-up")
    ]  # fmt: skip


def _seconds(words: list[str]) -> float:
    since = time.perf_counter()
    subprocess.run(words, check=False, capture_output=True)
    return time.perf_counter() - since


def table(rows: Sequence[dict[str, Any]]) -> "Table":
    """For the terminal."""
    from rich.table import Table

    made = Table("command", "seconds", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        made.add_row(row["command"], f"{row['seconds']:.2f}")
    made.caption = f"Python alone {rows[0]['python']:.2f}"
    return made
