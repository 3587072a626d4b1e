"""How a command ends: its exit code, one line on stderr for a full disk, quiet under `| head`.

Called by every command at the bottom of its file and where it catches errors.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from tif.utils import distributed, interrupts
from tif.utils.files import find_os_error


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
    if distributed.is_first_rank():
        print(f"{os_error.filename or 'disk'}: {os_error.strerror}; {next_step}", file=sys.stderr)
    return 1
