"""Run `tif fit` in processes that are killed at a chosen moment.

The processes are forked from one that has imported everything already: a tenth of a second
instead of seven.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import socket
import sys
import threading
import time

FILES = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "shutil.rmtree",
}  # names of Python's audit events


def context():
    """Return where processes are forked from; early, so that it imports while the test goes on."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["tif.training.run", "tests.support.killed_processes"])
    return forkserver


def fit(where, words, after=None, at_file=None, at=None):
    """Run the command in a process of its own.

    Args:
        where: `context()`.
        words: of the command.
        after: seconds until SIGKILL.
        at_file: SIGKILL when the run's folder is touched for the n-th time: opened, renamed,
            removed or made.
        at: (audit event, pattern): SIGKILL at the first such event in the run's folder, the pattern
            in its paths; the event is then not carried out. ("half a row", n): in the middle of
            writing the n-th row of metrics.jsonl.

    Returns:
        The exit code, -9 if it was killed; and the seconds it took.
    """
    since = time.perf_counter()
    process = where.Process(target=_fit, args=(words, after, at_file, at))
    process.start()
    process.join()
    return process.exitcode, time.perf_counter() - since


def fit_together(where, words, processes, meanwhile=None, delay=0.0, at=None):
    """Run the command in processes of one group, as srun or torchrun would start them.

    Args:
        where, words: as `fit`.
        processes: how many.
        meanwhile: called with the processes while they run.
        delay: seconds that each call of tests.support.slow_loss:lpl sleeps.
        at: as `fit`, by rank; when one has died, the others are killed, as torchrun does it.

    Returns:
        Exit codes, by rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        env = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "NODE_RANK": 0,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TIF_TEST_DELAY": delay,
        }
        env = {name: str(value) for name, value in env.items()}
        started.append(where.Process(target=_run_rank, args=(words, env, (at or {}).get(rank))))
    for process in started:
        process.start()
    if meanwhile:
        meanwhile(started)
    if at:
        multiprocessing.connection.wait([process.sentinel for process in started])
        for process in started:
            process.kill()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def _run_rank(words, env, at):
    os.environ.update(env)
    _fit(words, None, None, at)


def _fit(words, after, at_file, at=None):
    import torch

    from tif import fit as command

    torch.set_num_threads(1)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process, which would outlive this one
    folder = next(word.partition("=")[2] for word in words if word.startswith("run.folder="))
    if after is not None:
        threading.Timer(after, _kill).start()
    if at_file is not None:
        left = [at_file]

        def hook(event, args):
            if event in FILES and args and folder in str(args[0]):
                left[0] -= 1
                if left[0] == 0:
                    _kill()

        sys.addaudithook(hook)
    if at is not None and at[0] == "half a row":
        _die_in_row(at[1])
    elif at is not None:

        def die(event, args):
            paths = str(args[:2])
            if event == at[0] and folder in paths and re.search(at[1], paths):
                _kill()

        sys.addaudithook(die)
    with contextlib.redirect_stdout(io.StringIO()):
        code = command.main(words)
    sys.stdout.flush()
    os._exit(code)


def _die_in_row(number):
    """Write half of the row of that number, counted from 1 in this process, and die."""
    from tif.records import metrics_log

    write, left = metrics_log.append_json_lines, [number]

    def write_half(path, rows):
        left[0] -= 1
        write(path, rows)
        if left[0] == 0:
            os.truncate(path, path.stat().st_size - 20)
            _kill()

    metrics_log.append_json_lines = write_half


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)
