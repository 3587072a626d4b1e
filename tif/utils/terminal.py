"""What people see while they wait: one console, one progress display that nested work shares.

On anything that is no terminal (a log file, a SLURM job) bars are left out; commands print a line an epoch instead.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(highlight=False, emoji=False)
_progress = Progress(
    TextColumn("{task.description}"),
    BarColumn(bar_width=24),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
    TextColumn("[dim]{task.fields[note]}"),
    console=console,
    transient=True,
    disable=not console.is_terminal,
)


def silence() -> None:
    """Say nothing from now on: a process that is not the first."""
    console.quiet = True
    _progress.disable = True


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Drop what libraries print inside, bars included; the console goes on where it was."""
    before, nothing = console._file, io.StringIO()
    console.file = console.file
    try:
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            yield
    finally:
        console._file = before


class Bar:
    """One line of the display."""

    def __init__(self, description: str, total: int) -> None:
        self._id = _progress.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Move on; `note` is shown behind the bar."""
        _progress.advance(self._id, steps)
        if note is not None:
            _progress.update(self._id, note=note)


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """A progress bar for the block; blocks may nest."""
    if not _progress.task_ids:
        _progress.start()
    line = Bar(description, total)
    try:
        yield line
    finally:
        _progress.remove_task(line._id)
        if not _progress.task_ids:
            _progress.stop()


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Iterate with a progress bar."""
    with bar(description, len(items)) as line:
        for item in items:
            yield item
            line.advance()
