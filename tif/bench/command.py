"""tif bench: measure a step of training on this machine, and compute a model's memory.

    tif bench [what=step|memory] [key=value ...] [--json]

what=step      A step of TPO at several batch sizes, each in a process of its own: seconds, tokens
               a second, and memory above weights, gradients and optimizer (no result = more than
               the machine has).
what=memory    GB that a step needs on each GPU, computed from a model's shape alone.

    tif bench model.path=../SmolLM2-135M data.benchmark=tofu data.path=../TOFU
    tif bench what=memory model.path=FOLDER model.dtype=bfloat16
"""

import importlib
from argparse import Namespace
from typing import Any

from tif.bench.settings import BenchSettings
from tif.config import load as config
from tif.config.command import Command
from tif.utils import command_line


def bench(options: Namespace) -> Any:
    """Measure what the words name; return the rows for `--json`."""
    settings = config.read(BenchSettings, options.words)
    return measure_and_show(f"tif.bench.{settings.what}", settings, options.json)


def measure_and_show(module: str, settings: BenchSettings, wants_json: bool) -> Any:
    """Let a module measure, and show its table; return the rows where JSON is wanted.

    The module has measure(settings) -> rows that JSON can hold, COLUMNS (title -> how a cell is
    made from a row), and, where the table needs one, a NOTE.
    """
    with command_line.loading():
        from tif.utils.terminal import print_line, print_rows, quiet_libraries

        quiet_libraries()
        work = importlib.import_module(module)
    rows = work.measure(settings)
    if wants_json:
        return rows
    print_rows(rows, work.COLUMNS)
    if hasattr(work, "NOTE"):
        print_line(work.NOTE, style="dim")
    return None


COMMAND = Command("bench", __doc__, bench, BenchSettings, flags=("--json",))
main = COMMAND.main
