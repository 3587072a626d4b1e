"""A clock, the peak of memory, and a new process for a measurement. Used by all of this room."""

import concurrent.futures
import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from tif.utils import interrupts
from tif.utils.terminal import quiet_libraries

T = TypeVar("T")


def run_alone(measure: Callable[..., T], *args: Any) -> T:
    """Call `measure` in a new process, so that no other work counts in its memory."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn, quiet_libraries) as pool:
        # The child begins with the handlers of this moment: Ctrl-C is its parent's alone.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interrupts.following_children():
            result = pool.submit(measure, *args)
        signal.signal(signal.SIGINT, before)
        return result.result()


def read_clock(device: str) -> float:
    """Return seconds on a clock, after all work that was given to the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class PeakMemory:
    """The peak of memory above what is held when this is created; in MB (2^20 bytes).

    On a CPU it is resident memory (Linux only), on CUDA what PyTorch has allocated. Not
    getrusage's ru_maxrss: a new process begins with its parent's.
    """

    def __init__(self, device: str) -> None:
        self.is_cuda = device == "cuda"
        self.restart()
        self.held_mb = torch.cuda.memory_allocated() / 2**20 if self.is_cuda else _read("VmRSS")

    def restart(self) -> None:
        """Forget the peak so far; what was held at the beginning stays the base."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Return the peak since the last restart, above the base."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.is_cuda else _read("VmHWM")
        return peak - self.held_mb


def _read(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[key].split()[0]) / 1024  # the file has kB
