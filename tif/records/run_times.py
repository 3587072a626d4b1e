"""How long the parts of a run took: seconds by name, kept in times.json of the run's folder.

Written by `training/run` and its callbacks; `summary.json` repeats it. A resumed run adds to it.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tif.records.json_values import load_json, parse
from tif.utils import distributed
from tif.utils.files import write_text

FILE_NAME = "times.json"
Seconds = dict[str, float]


def read_times(folder: Path) -> Seconds:
    """Return the seconds by name; none where the file is missing or damaged."""
    path = folder / FILE_NAME
    try:
        return parse(Seconds, load_json(path), path)
    except (OSError, ValueError):
        return {}


def add_times(folder: Path, seconds: Mapping[str, float]) -> None:
    """Add seconds to those in the folder. All processes may call; the first one writes."""
    if not distributed.is_first_rank():
        return
    times = read_times(folder)
    for name, value in seconds.items():
        times[name] = round(times.get(name, 0.0) + value, 3)
    write_text(folder / FILE_NAME, json.dumps(times, indent=1) + "\n")


@contextlib.contextmanager
def measured(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time that the block takes to `seconds`, also where it raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
