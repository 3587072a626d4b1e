"""How a command ends."""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int]) -> NoReturn:
    """Leave with main's exit code; where nobody reads its output any more (`| head`), quietly with SIGPIPE's.

    SIGPIPE itself stays ignored, as Python has it: it would also end a command whose server hangs up.
    """
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _is_cut():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed once more at exit
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _is_cut() -> bool:
    """Whether nobody reads the output."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return bool(output.poll(0))  # an error or the end of the line: what is always reported
