"""Make a sweep's runs in several local processes at a time. Called by `tif.sweep.command`.

Each process is a task of its own: `tif sweep FILE.yaml --index N`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tif.config.schema import Config
from tif.reports.sweep import View
from tif.sweep.run import find_finished_run, finish_sweep, is_made_elsewhere
from tif.utils import interrupts
from tif.utils.terminal import console, progress_bar

HANDED_ON = (signal.SIGINT, signal.SIGTERM, interrupts.REQUEUE)


def run_in_processes(
    configs: Sequence[Config], words: Sequence[str], jobs: int, view: View | None = None
) -> int:
    """Make all runs of a sweep and show its results; return the largest exit code of a run.

    The output of a run goes to <run.folder>/<sweep>/log/<number>.txt. The processes share the
    cores. Each has a GPU of its own; where there are fewer GPUs than jobs, several jobs share one.
    A signal is handed on: the runs end as they would alone, and 128 + its number is returned.

    Args:
        configs: of the runs, by number.
        words: of the command, without options.
        jobs: processes at a time.
        view: what the sweep's file wants shown.
    """
    sweep = configs[0].run.name.rsplit("/", 2)[0]
    log_folder = Path(configs[0].run.folder) / sweep / "log"
    log_folder.mkdir(parents=True, exist_ok=True)
    waiting = [number for number, cfg in enumerate(configs) if find_finished_run(cfg) is None]
    free_slots = list(range(jobs))
    running: dict[int, tuple[int, subprocess.Popen]] = {}  # number -> slot and process
    processes: list[subprocess.Popen] = []
    largest_code = 0
    with (
        _hand_on_signals(processes) as signals,
        progress_bar("runs", len(waiting)) as progress,
    ):
        while running or (waiting and not signals):
            while waiting and free_slots and not signals:
                number = _choose_next(waiting, configs)
                waiting.remove(number)
                slot = free_slots.pop(0)
                command = [sys.executable, "-m", "tif.sweep", *words, "--index", str(number)]
                process = _start(command, log_folder / f"{number}.txt", _environment(slot, jobs))
                running[number] = slot, process
                processes.append(process)
                if signals:  # it came before the process was in the list
                    process.send_signal(signals[-1])
            time.sleep(0.05)
            ended = [number for number in running if running[number][1].poll() is not None]
            for number in ended:
                slot, process = running.pop(number)
                free_slots.append(slot)
                code = process.returncode
                code = code if code >= 0 else 128 - code  # negative: killed by a signal
                largest_code = max(largest_code, code)
                progress.advance()
                if not signals:
                    log_file = log_folder / f"{number}.txt"
                    _print_outcome(configs[number].run.name, code, log_file)
    if signals:
        name = signal.Signals(signals[0]).name
        interrupts.say(f"stopped by {name}; the same command goes on with what is missing")
        return 128 + signals[0]
    finish_sweep(configs, view)
    return largest_code


@contextlib.contextmanager
def _hand_on_signals(children: Collection[subprocess.Popen]) -> Iterator[list[int]]:
    """Hand signals on to `children` in the block, and give the list of those that came.

    The children need process groups of their own: else Ctrl-C reaches them twice, and the second
    one means "at once".
    """
    received: list[int] = []

    def hand_on(number: int, frame: Any) -> None:
        received.append(number)
        for child in tuple(children):
            child.send_signal(number)
        if received.count(signal.SIGINT) > 1:
            interrupts.end_at_once(number)

    before = {number: signal.signal(number, hand_on) for number in HANDED_ON}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _choose_next(waiting: Sequence[int], configs: Sequence[Config]) -> int:
    """Return the first run that no other process is making, or else the first."""
    free = [number for number in waiting if not is_made_elsewhere(configs[number])]
    return free[0] if free else waiting[0]


def _start(command: Sequence[str], log_file: Path, env: dict[str, str]) -> subprocess.Popen:
    """Start a process that ends with this one and gets no Ctrl-C from the terminal."""
    with log_file.open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
            env=env | {interrupts.PARENT: str(os.getpid())},
        )  # fmt: skip


def _print_outcome(name: str, code: int, log_file: Path) -> None:
    outcome = "done"
    if code != 0:
        outcome = f"failed, exit code {code}: {_last_line(log_file)} ({log_file})"
    console.print(f"{name}: {outcome}", soft_wrap=True)


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """Return the environment of a process, with its share of the cores and its GPU."""
    import torch

    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    gpu_count = torch.cuda.device_count()
    if gpu_count:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if len(visible) != gpu_count:
            visible = [str(i) for i in range(gpu_count)]
        env["CUDA_VISIBLE_DEVICES"] = visible[slot % gpu_count]
    return env


def _last_line(file: Path) -> str:
    """Return the last line of a log that is not blank."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    written = [line for line in lines if line.strip()]
    return written[-1] if written else "no word"
