"""How a command reads words, prints text and ends: exit code, errors, quiet under `| head`.

Called by `config/command.py`, the wrapper of all commands.
"""

import contextlib
import errno
import json
import os
import re
import select
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

import yaml

from tif.utils import distributed, interrupts
from tif.utils.files import find_os_error

FULL_LINE = 80  # characters; a longer line of a help text goes on in the next
FIRST_COLUMN = 8  # no list of a help text has its second column further left
GAPS_END = 54  # nor further right
LEAST_TEXT = 20  # characters beside a gap; where fewer are left, the text goes on below the name
# What stands where a file or folder of another kind is wanted.
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Call a command's main function and exit with the code that it returns.

    Where the reader of the output has left (`tif report ... | head`), the command ends quietly
    with the exit code of SIGPIPE. The signal itself stays ignored, as Python sets it: it would
    also end a command whose server hangs up.
    """
    interrupts.watch()
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        # Python flushes stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _is_output_closed() -> bool:
    """Return whether the reader of stdout has closed it."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return bool(output.poll(0))  # POLLERR and POLLHUP are always reported


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Send what the block prints to stderr, child processes included: stdout is for JSON."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(output, 1)
        os.close(output)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Say in a terminal that libraries load in the block: on a busy machine that takes a while."""
    is_shown = sys.stderr.isatty() and distributed.is_first_rank()
    if is_shown:
        print("loading ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def print_text(text: str, file: TextIO | None = None) -> None:
    """Print a text with its control characters spelled out."""
    if not text.replace("\n", "").isprintable():
        # Imported here because rich takes longer to import than an error may take.
        from tif.utils.terminal import escape_controls

        text = escape_controls(text)
    print(text, file=file)


def print_help(text: str) -> None:
    """Print a help text; in a terminal that is narrower than its lines, wrap them anew."""
    width = shutil.get_terminal_size().columns
    print(fit_help(text, width) if sys.stdout.isatty() else text)


def fit_help(text: str, width: int) -> str:
    """Return a help text with lines of at most `width` characters, broken between words.

    Lines of prose (not indented) are filled anew; those of a list go on below the place where
    their text begins, which is behind the last gap of two blanks.
    """
    lines = text.splitlines()
    if max(map(len, lines), default=0) <= width:
        return text
    blocks: list[str] = []
    for last, line in zip(["", *lines], lines, strict=False):
        start = _indent(line)
        is_below = bool(last.strip()) and start == _text_start(blocks[-1])
        goes_on = len(last) > FULL_LINE if start == 0 else start > FIRST_COLUMN
        if line.strip() and is_below and goes_on:
            blocks[-1] += f" {line.strip()}"
        else:
            blocks.append(line)
    filled = []
    for block in blocks:
        start = _text_start(block)
        if start > width - LEAST_TEXT:
            start = _indent(block)
        filled.append(_fill(block, width, start))
    return "\n".join(filled)


def _fill(line: str, width: int, indent: int) -> str:
    """Return a line broken between words; what goes on is indented."""
    options: Any = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(line, width, subsequent_indent=" " * indent, **options)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _text_start(line: str) -> int:
    """Return where the text of a line begins: behind its gap, or its indentation."""
    name = re.match(r" *\S.*?\S  +(?=\S)", line[:GAPS_END])
    return name.end() if name else _indent(line)


def print_json(value: Any, indent: int | None = 1) -> None:
    """Print a value as JSON. All but DEL is spelled out by the library."""
    text = json.dumps(value, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")
    print(text, flush=True)


def print_configuration(text: str, comments: Sequence[str]) -> None:
    """Print YAML and comments below it; control characters as escapes that YAML knows."""
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(yaml.safe_load(text), sort_keys=False)
    print(text, end="")
    print_text("\n".join(comments))


def print_error(error: Exception | str) -> None:
    """Print an error's lines on stderr, on the first rank only; a terminal's break at blanks."""
    if not distributed.is_first_rank():
        return
    lines = str(error).split("\n")  # splitlines knows control characters too
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = [_fill(line, width, 4) for line in lines]
    print_text("\n".join(lines), sys.stderr)


def report_os_error(error: Exception, next_step: str) -> int:
    """Print in one line on stderr what the operating system refused, and the next step.

    Returns:
        The command's exit code, 1.

    Raises:
        Exception: The error itself where it has another cause.
    """
    os_error = find_os_error(error)
    if os_error is None:
        raise error
    if os_error.errno in IN_THE_WAY:
        next_step = "delete it, then give the same command again"
    print_error(f"{os_error.filename or 'disk'}: {os_error.strerror}; {next_step}")
    return 1
