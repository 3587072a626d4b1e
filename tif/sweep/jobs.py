"""A sweep's runs in several local processes, each of them a task of `python -m tif.sweep FILE --index N`."""

import concurrent.futures
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from tif.config.schema import Config
from tif.utils.terminal import console, progress_bar


def run_all(name: str, configs: Sequence[Config], words: Sequence[str], jobs: int) -> int:
    """Make all runs, `jobs` at a time; what they say goes to <run.folder>/<sweep>/log/<number>.txt.

    Args:
        name: of the sweep.
        configs: of its runs, by number.
        words: the command's, without options.
        jobs: processes at a time. They share the cores; each has a GPU of its own, in turn where there are fewer.

    Returns:
        The largest exit code of the runs.
    """
    folder = Path(configs[0].run.folder) / name / "log"
    folder.mkdir(parents=True, exist_ok=True)
    places: queue.Queue[int] = queue.Queue()
    for place in range(jobs):
        places.put(place)

    def make(number: int) -> int:
        place = places.get()
        try:
            with (folder / f"{number}.txt").open("w", encoding="utf-8") as log:
                command = [sys.executable, "-m", "tif.sweep", *words, "--index", str(number)]
                return subprocess.run(
                    command, stdout=log, stderr=log, env=_environment(place, jobs), check=False
                ).returncode
        finally:
            places.put(place)

    worst = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool, progress_bar("runs", len(configs)) as line:
        made = {pool.submit(make, number): number for number in range(len(configs))}
        for done in concurrent.futures.as_completed(made):
            number, code = made[done], done.result()
            worst = max(worst, code if code >= 0 else 128 - code)
            run, log = escape(configs[number].run.name), folder / f"{number}.txt"
            line.advance()
            console.print(f"{run}: done" if code == 0 else f"{run}: failed, exit code {code}: {_last(log)} ({log})",
                          soft_wrap=True, markup=code == 0)  # fmt: skip
    return worst


def _environment(place: int, jobs: int) -> dict[str, str]:
    """A process's share of the machine."""
    import torch

    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    if count := torch.cuda.device_count():
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",")
        visible = visible if len(visible) == count else [str(i) for i in range(count)]
        env["CUDA_VISIBLE_DEVICES"] = visible[place % count]
    return env


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "no word")
