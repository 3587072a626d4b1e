"""What people see while they wait: one console, one display of progress bars.

Bars of nested work share the display. Where the output is no terminal (a log file, a SLURM job)
no bars are drawn: trainings print a line an epoch, and a bar prints a line a minute. Called by
everything that prints.

Texts of data, models, servers and file names are shown and never obeyed: the console prints no
control character and knows no markup. Styled words are `rich.text.Text`.
"""

import contextlib
import io
import logging
import re
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 60  # of a bar, where the output is no terminal
MIN_SHOWN_BYTES = 500 * 10**6  # fewer are written before a bar could be read

# C0 without tab and newline, DEL, C1, other line ends, orders of direction, lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape_controls(text: str) -> str:
    r"""Return the text with each control character but newline and tab spelled out, as \x1b."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def literal(text: str, style: str = "") -> Text:
    """Return a text of the data, to be shown as it is in a table or in a style."""
    return Text(escape_controls(text), style)


class _Console(Console):
    """Spells out control characters; leaves a closed output to `command_line.run_main`."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where rich ends the process with exit code 1."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_controls(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text)
            yield Segment(text, segment.style, segment.control)


class _RateColumn(progress.ProgressColumn):
    """Shows how fast a bar moves; nothing before it is known."""

    def render(self, task: progress.Task) -> Text:
        return Text(describe_rate(task.speed), "progress.data.speed")


class _NoteColumn(progress.ProgressColumn):
    """Shows the note, cut where the line ends."""

    def render(self, task: progress.Task) -> Text:
        return Text(task.fields["note"], "dim", no_wrap=True, overflow="ellipsis")


def describe_rate(speed: float | None) -> str:
    """Return items a second as "3.2/s" or, for slow ones, "12 s each"; "" for None or 0."""
    if not speed:
        return ""
    if speed >= 10:
        return f"{speed:,.0f}/s"
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.3g} s each"


def describe_seconds(seconds: float) -> str:
    """Return a duration as "8 s", "3 min 5 s" or "2 h 10 min"."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


console = _Console(highlight=False, emoji=False, markup=False)
_WHOLE = Column(no_wrap=True)  # as narrow as its content, never narrower
_display = progress.Progress(
    progress.TextColumn("{task.description}", markup=False),
    progress.BarColumn(bar_width=16, table_column=_WHOLE),
    progress.MofNCompleteColumn(table_column=_WHOLE),
    _RateColumn(table_column=_WHOLE),
    progress.TimeRemainingColumn(compact=True, table_column=_WHOLE),
    progress.TextColumn("left", table_column=_WHOLE),
    _NoteColumn(),
    speed_estimate_period=300,  # an item may take a minute
    console=console,
    transient=True,
    disable=not console.is_terminal,
)


def print_line(*pieces: str | Text, style: str | None = None) -> None:
    """Print a line: wrapped between words in a terminal, in a log whole, however long it is."""
    console.print(*pieces, style=style, soft_wrap=not console.is_terminal)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print a table: the values of a row fill the form of each column; a list is its items.

    A column that no row has is left out; None, which has no number format, is "no result".
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    cells_of_columns: list[list[str]] = []
    for title, form in columns.items():
        cells = [_fill_cell(form, row) for row in rows]
        if any(cells):
            table.add_column(title, no_wrap=not cells_of_columns, overflow="fold")
            cells_of_columns.append(cells)
    for row_cells in zip(*cells_of_columns, strict=True):
        table.add_row(*map(literal, row_cells))
    console.print(table)


def _fill_cell(form: str, row: Mapping[str, Any]) -> str:
    values = {key: ", ".join(v) if isinstance(v, list) else v for key, v in row.items()}
    try:
        return form.format(**values)
    except KeyError:
        return ""
    except TypeError:
        return "no result"


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
        "module\\(s\\) in eval mode at the start of training",  # routers, see torch_state
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
        self.description = description
        self.task_id = _display.add_task(escape_controls(description), total=total, note="")
        self._logged_at = time.monotonic()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Move the bar on; `note` is shown behind it."""
        _display.advance(self.task_id, steps)
        if note is not None:
            _display.update(self.task_id, note=escape_controls(note))
        if console.is_terminal or time.monotonic() - self._logged_at < SECONDS_BETWEEN_LINES:
            return
        self._logged_at = time.monotonic()
        (task,) = (task for task in _display.tasks if task.id == self.task_id)
        line = f"{self.description}: {task.completed:g} of {task.total:g}"
        if task.time_remaining:
            line += f", {describe_seconds(task.time_remaining)} left"
        print_line(line)


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


@contextlib.contextmanager
def file_bar(description: str, folder: Path, size: int) -> Iterator[None]:
    """Show how much of `size` bytes the block has written to a folder; none for a second's work."""
    if size < MIN_SHOWN_BYTES:
        yield
        return
    is_over = threading.Event()

    def watch(bar: Bar) -> None:
        shown = 0
        while not is_over.wait(0.5):
            written = 0
            for file in folder.glob("*"):
                with contextlib.suppress(OSError):  # renamed in the meantime
                    written += file.stat().st_size
            megabytes = min(written, size) // 10**6
            bar.advance(megabytes - shown)
            shown = megabytes

    with progress_bar(f"{description}, MB", size // 10**6) as bar:
        watcher = threading.Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()


def track(items: Sequence[T], description: str) -> Iterable[T]:
    """Yield the items and show a progress bar."""
    with progress_bar(description, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
