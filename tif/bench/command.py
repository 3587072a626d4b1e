"""tif bench: measure what the work costs on this machine, as ratios and growth.

    tif bench [what=step|eval|identify|startup|scaling|memory] [key=value ...] [--json]

what=step      A step of TPO, and three other ways to compute the same loss, in turns:
               `release` (every sample padded to 500 tokens, one forward of the policy for LPL and
               one for PL, a resident reference, logits of all positions), `two-pass` (the same,
               padded to the batch's longest sample) and `dynamic` (one forward of the policy,
               padded so). Seconds, ratios, tokens/s, the share of this machine's rate of matrix
               products, memory (no result = more than the machine has).
what=scaling   The cost of a step as samples, lengths and vocabulary grow, on random weights.
what=identify  Words per second and peak memory of masked_lm and causal_lm on one document of
               growing length, with tiny models made here (or yours). Words/s should stay level
               and memory flat, whatever the length.
what=eval      TOFU's questions scored and answered by tif, and in the way of its peers: every
               answer padded to 200 tokens, generations in the data's order. model.path: a model
               that was finetuned on TOFU.
what=startup   Seconds until --help, --print and a configuration error are answered.
what=memory    GB that a step needs on each GPU, computed from a model's shape alone.

    tif bench model.path=../SmolLM2-135M data.benchmark=tofu data.path=../TOFU
    tif bench retain=true                     the same with a retain term in the loss

Memory is measured in a process of its own each time, above weights, gradients and optimizer.
"""

import importlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from tif.bench.settings import BenchSettings
from tif.config import load as config
from tif.config.command import Command
from tif.utils import command_line

# Each module has measure(settings) -> rows that JSON can hold, COLUMNS (title -> how a cell is
# made from a row), and may have a NOTE on the table.
MODULES = {"eval": "evaluation", "identify": "identification"}


def bench(options: Namespace) -> Any:
    """Measure what the words name; return the rows for `--json`."""
    settings = config.read(BenchSettings, options.words)
    with command_line.loading():
        from tif.utils.terminal import quiet_libraries

        quiet_libraries()
        module = MODULES.get(settings.what, settings.what)
        work = importlib.import_module(f"tif.bench.{module}")
    rows = work.measure(settings)
    if options.json:
        return rows
    _show_table(rows, work.COLUMNS, getattr(work, "NOTE", None))
    return None


def _show_table(
    rows: Sequence[dict[str, Any]], columns: Mapping[str, str], note: str | None
) -> None:
    from rich.table import Table

    from tif.utils.terminal import console, print_line

    # Columns of which nothing was measured are left out.
    measured = {
        title: cell
        for title, cell in columns.items()
        if any(_format_cell(cell, row) for row in rows)
    }
    table = Table(*measured, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(_format_cell(cell, row) for cell in measured.values()))
    console.print(table)
    if note:
        print_line(note, style="dim")


def _format_cell(cell: str, row: Mapping[str, Any]) -> str:
    try:
        return cell.format(**row)
    except KeyError:  # not measured for this row
        return ""
    except TypeError:  # None, which has no number format
        return "no result"


COMMAND = Command("bench", __doc__, bench, BenchSettings, flags=("--json",))
main = COMMAND.main
