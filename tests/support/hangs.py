"""The only limit of time in tests, which ends those that hang; what they assert on instead.

How long something takes is no assertion: it breaks on a busy machine and holds on a fast one.
Tests look at the order of events, at counts (requests, bytes, calls) and at clocks of their own;
tests/test_tests.py finds a measured time that is compared elsewhere.
"""

import contextlib
import signal
import sys
import threading
import time

HANG = 120  # seconds; a process that only imports torch took 76 on a busy machine


class Hanging(BaseException):
    """Something has not ended after HANG; no `except Exception` of the tested code takes it."""


@contextlib.contextmanager
def no_hang(seconds=HANG):
    """End the block with Hanging if it goes on for so long; in the main thread, not nested."""

    def stop(*_):
        raise Hanging(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_until(is_so, describe=lambda: "", seconds=HANG):
    """Wait until a condition holds; raise Hanging with a description if it never does."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not is_so():
        if time.monotonic() > end:
            raise Hanging(f"waited {seconds} s in vain: {describe()}")
        pause.wait(0.02)


def count_calls(function, *arguments):
    """Return how many functions, of Python and of C, this thread calls in a function.

    They measure work without a clock: the same number on every machine.
    """
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return calls
