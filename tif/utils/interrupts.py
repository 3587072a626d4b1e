"""How processes end: Ctrl-C is one line, children get their parent's signals and end with it.

`import tif` calls `watch` where Python runs one of tif's commands, before slow imports: from then
on Ctrl-C ends the command at once. A training (training/checkpoints.py) and a parent of other
processes (sweep/jobs.py) put their own handlers in its place while they run. Nothing slow is
imported here: a Ctrl-C before `watch` is a traceback.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

# A batch system sends it before a time limit; a job that ends by it goes back to the queue
# (slurm/common.sh, which has its number once more).
REQUEUE = signal.SIGUSR1
PARENT = "TIF_PARENT"  # environment variable: the number of the process that this one ends with
NEXT_STEP = "what was complete is there, and the same command goes on from it"
_lines_said: list[str] = []


def watch() -> None:
    """Let Ctrl-C end this process with one line, and follow the parent that PARENT names.

    Where Ctrl-C is ignored (nohup, a background job of a shell script), it stays so.
    """
    parent = os.environ.pop(PARENT, None)
    if parent:
        _end_with(int(parent))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def _end_with(parent: int) -> None:
    """Get SIGTERM when the parent dies (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died before
        os._exit(128 + signal.SIGTERM)


def end_at_once(number: int, frame: Any = None) -> None:
    """Say which signal stops this process, unless a line did, and end it whatever it is doing.

    No exception is raised: libraries swallow it, or print it where nobody can catch it. Files are
    replaced in one step, the system releases locks, and children follow this process.
    """
    if not _lines_said:
        say(f"stopped by {signal.Signals(number).name}; {NEXT_STEP}")
    os._exit(128 + number)


def say(line: str) -> None:
    """Print on stderr, on the first rank only, the line that says why the command stops."""
    _lines_said.append(line)
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0"
    if rank != "0":
        return
    with contextlib.suppress(Exception):  # a handler may have interrupted a write
        sys.stdout.flush()
    if sys.stderr.isatty():
        line = f"\r\x1b[K\x1b[?25h{line}"  # clear a progress bar and show the cursor that it hid
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def following_children() -> Iterator[None]:
    """Let the processes that tif starts in the block end with this one."""
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[PARENT]
