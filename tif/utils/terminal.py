"""What people see while they wait: one console, one display of progress bars.

Bars of nested work share the display. Where the output is no terminal (a log file, a SLURM job)
no bars are drawn; commands print a line an epoch instead. Called by everything that prints.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


class _Console(Console):
    """A console that leaves a closed output to `command_line.run_main`."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where rich ends the process with exit code 1."""
        raise BrokenPipeError


console = _Console(highlight=False, emoji=False)
_display = progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(bar_width=24),
    progress.MofNCompleteColumn(),
    progress.TimeElapsedColumn(),
    progress.TimeRemainingColumn(),
    progress.TextColumn("[dim]{task.fields[note]}"),
    console=console,
    transient=True,
    disable=not console.is_terminal,
)


def silence() -> None:
    """Print nothing from now on; for all ranks but the first."""
    console.quiet = True
    _display.disable = True


def quiet_libraries() -> None:
    """Turn off the libraries' tips and bars, and the warnings on which no user can act."""
    from transformers.utils import logging as transformers_logging

    for name in ("lightning.pytorch", "lightning.fabric", "bitsandbytes.backends.cpu"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for message in (
        "does not have many workers",
        "MatMul8bitLt: inputs will be cast",  # that is what model.quantize=int8 means
        "past_key_values.*is deprecated",  # transformers before 5.24 has no other name
        "The `srun` command is available",  # tif starts its own processes
        "LeafSpec",  # Lightning 2.6 with torch 2.13
        "Checkpoint directory.*exists and is not empty",
    ):
        warnings.filterwarnings("ignore", f".*{message}")


@contextlib.contextmanager
def silenced_libraries() -> Iterator[None]:
    """Drop what libraries print in the block, bars included; the console still prints."""
    # The console looks up sys.stdout at each print unless it has a file of its own.
    file_before = console._file
    console.file = console.file
    dropped = io.StringIO()
    try:
        with contextlib.redirect_stdout(dropped), contextlib.redirect_stderr(dropped):
            yield
    finally:
        console._file = file_before


class Bar:
    """One bar of the display; made by `progress_bar`."""

    def __init__(self, description: str, total: int) -> None:
        self.task_id = _display.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Move the bar on; `note` is shown behind it."""
        _display.advance(self.task_id, steps)
        if note is not None:
            _display.update(self.task_id, note=note)


@contextlib.contextmanager
def progress_bar(description: str, total: int) -> Iterator[Bar]:
    """Show a progress bar for the block; blocks may nest."""
    if not _display.task_ids:
        _display.start()
    bar = Bar(description, total)
    try:
        yield bar
    finally:
        _display.remove_task(bar.task_id)
        if not _display.task_ids:
            _display.stop()


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Yield the items and show a progress bar."""
    with progress_bar(description, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
