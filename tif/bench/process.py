"""A process of its own for each measurement, and the peak memory that it reached."""

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def alone(measure: Callable[..., T], *args: Any) -> T:
    """`measure` in a process of its own: its peak memory is nobody else's."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure, *args).result()


def now(device: str) -> float:
    """Seconds on a clock, when all that was asked of the device is done."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """Peak memory above what is held now, on the CPU (resident memory, Linux) or on a CUDA device.

    Not getrusage's ru_maxrss: a new process begins with its parent's.

    Create it, work, then read `peak_mb`.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        if self.cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.held = torch.cuda.memory_allocated() / 2**20
        else:
            self.held = self._status("VmRSS")

    def restart(self) -> None:
        """Forget the peak so far; what was held at the beginning stays the base."""
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """MB above the base."""
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated() / 2**20 - self.held
        return self._status("VmHWM") - self.held

    @staticmethod
    def _status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
