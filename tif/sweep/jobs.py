"""Make a sweep's runs in several local processes at a time. Called by `tif.sweep.command`.

Each process is a task of its own: `python -m tif.sweep FILE.yaml --index N`.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tif.config.schema import Config
from tif.utils.terminal import console, progress_bar


def run_in_processes(configs: Sequence[Config], words: Sequence[str], jobs: int) -> int:
    """Make all runs of a sweep, print how each ended, and return the largest exit code.

    The output of a run goes to <run.folder>/<sweep>/log/<number>.txt. The processes share the
    cores. Each has a GPU of its own; where there are fewer GPUs than jobs, several jobs share one.

    Args:
        configs: of the runs, by number.
        words: of the command, without options.
        jobs: processes at a time.
    """
    sweep = configs[0].run.name.rsplit("/", 2)[0]
    log_folder = Path(configs[0].run.folder) / sweep / "log"
    log_folder.mkdir(parents=True, exist_ok=True)
    free_slots: queue.Queue[int] = queue.Queue()
    for slot in range(jobs):
        free_slots.put(slot)

    def run_task(number: int) -> int:
        command = [sys.executable, "-m", "tif.sweep", *words, "--index", str(number)]
        slot = free_slots.get()
        try:
            with (log_folder / f"{number}.txt").open("w", encoding="utf-8") as log:
                env = _environment(slot, jobs)
                code = subprocess.call(command, stdout=log, stderr=log, env=env)
        finally:
            free_slots.put(slot)
        return code if code >= 0 else 128 - code  # negative: killed by a signal

    largest_code = 0
    total = len(configs)
    with ThreadPoolExecutor(jobs) as pool, progress_bar("runs", total) as progress:
        tasks = {pool.submit(run_task, number): number for number in range(total)}
        for task in as_completed(tasks):
            number, code = tasks[task], task.result()
            largest_code = max(largest_code, code)
            progress.advance()
            outcome = "done"
            if code != 0:
                log_file = log_folder / f"{number}.txt"
                outcome = f"failed, exit code {code}: {_last_line(log_file)} ({log_file})"
            console.print(f"{configs[number].run.name}: {outcome}", soft_wrap=True, markup=False)
    return largest_code


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
