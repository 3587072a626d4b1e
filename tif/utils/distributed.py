"""The processes of a run: their ranks, how they start, and what the first one does for all.

srun and torchrun start the processes themselves. Where neither did and the configuration asks for
several devices, `launch` starts them as torchrun does. Ranks come from environment variables, so a
command can ask for them before it imports torch. Called by the commands, `training` and
`evaluation`.
"""

import atexit
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

from tif.utils import interrupts
from tif.utils.files import locked

T = TypeVar("T")


@functools.cache
def rank() -> int:
    """Return the number of this process among all processes, from 0."""
    return int(os.environ.get("RANK", _slurm_number("PROCID", 0)))


def is_first_rank() -> bool:
    """Return whether this process writes the files and prints; true where it is alone."""
    return rank() == 0


# Cached: Lightning removes WORLD_SIZE when a trainer ends, and every stage has its own trainer.
@functools.cache
def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", _slurm_number("NTASKS", 1)))


@functools.cache
def local_world_size() -> int:
    """Return the number of processes on this node."""
    nodes = _slurm_number("STEP_NUM_NODES", 1)
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size() // nodes))


def _slurm_number(name: str, default: int) -> int:
    """Return SLURM's variable inside a task of srun, else the default.

    Lightning's SLURMEnvironment reads SLURM_NTASKS also in a batch script before srun, where it
    holds the number of tasks to come; only a task of srun has SLURM_STEP_NODELIST.
    """
    if "SLURM_STEP_NODELIST" not in os.environ:
        return default
    return int(os.environ.get(f"SLURM_{name}", default))


def launch(module: str, words: Sequence[str], devices: str, accelerator: str) -> int | None:
    """Run a command's module in one process per device, if section `trainer` asks for several.

    Returns:
        None where this process is enough or is one of several already. Else the exit code of the
        process that failed first, 0 if none failed.
    """
    if world_size() > 1 or "RANK" in os.environ:
        return None
    processes = int(devices) if devices.isdigit() else 1
    if devices in ("auto", "-1") and accelerator != "cpu":
        import torch

        processes = torch.cuda.device_count()
    if processes < 2:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logging.disable(logging.CRITICAL)  # the processes print their own errors
    run_id, host = f"tif{os.getpid()}", "localhost:0"
    settings = LaunchConfig(
        1, 1, processes, run_id=run_id, rdzv_backend="c10d", rdzv_endpoint=host, max_restarts=0
    )
    try:
        with interrupts.following_children():
            elastic_launch(settings, sys.executable)("-m", module, *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def start(accelerator: str) -> None:
    """Join the process group of the run; nothing happens where this process is alone."""
    import torch

    if world_size() == 1 or torch.distributed.is_initialized():
        return
    if "RANK" not in os.environ:
        _translate_slurm_variables()
    has_cuda = accelerator != "cpu" and torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo")


def start_alone() -> None:
    """Make a process group of this process alone, if there is none: FSDP2 needs one."""
    import torch

    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(store=store, rank=0, world_size=1)
        atexit.register(_leave_group)


def _translate_slurm_variables() -> None:
    """Set the variables that torch and Lightning read from those of srun.

    SLURMEnvironment itself is not used: it refuses `srun --ntasks=N` without --ntasks-per-node,
    and it requeues the job on signals that `training` handles.
    """
    from lightning.fabric.plugins.environments import SLURMEnvironment

    environ, local_size = os.environ, str(local_world_size())
    environ.update(RANK=str(rank()), WORLD_SIZE=str(world_size()), LOCAL_WORLD_SIZE=local_size)
    environ.update(LOCAL_RANK=environ["SLURM_LOCALID"], NODE_RANK=environ["SLURM_NODEID"])
    first_host = SLURMEnvironment.resolve_root_node_address(environ["SLURM_STEP_NODELIST"])
    environ.setdefault("MASTER_ADDR", first_host)
    environ.setdefault("MASTER_PORT", str(15000 + int(environ["SLURM_JOB_ID"]) % 10000))


def finish() -> None:
    """Leave the process group of the run, if there is one."""
    if world_size() > 1:
        _leave_group()


def _leave_group() -> None:
    import torch

    with contextlib.suppress(Exception):  # there is none, or the others are gone after an error
        torch.distributed.destroy_process_group()


def lightning_plugins() -> list[Any]:
    """Return plugins for `lightning.Trainer`: the processes exist, SLURM's signals are not its."""
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    is_elastic = TorchElasticEnvironment.detect()
    return [TorchElasticEnvironment() if is_elastic else LightningEnvironment()]


def select_device(accelerator: str) -> Any:
    """Return the torch.device of this process."""
    import torch

    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def run_on_first_rank(function: Callable[[], T]) -> T:
    """Call the function on the first rank and return its result, or raise its error, on all ranks.

    All ranks must call; the others wait. The result is pickled, so it should be small.
    """
    if world_size() == 1:
        return function()
    import torch

    outcome: list[Any] = [None, None]  # result and error
    if is_first_rank():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(T, outcome[0])


def barrier() -> None:
    """Wait until all ranks are here."""
    run_on_first_rank(lambda: None)


@contextlib.contextmanager
def entered_on_first_rank(context: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a context manager on the first rank for the block and give its value to all ranks.

    All ranks enter and leave the block together. The value is pickled.
    """
    with contextlib.ExitStack() as stack:
        yield run_on_first_rank(lambda: stack.enter_context(context))
        barrier()


def locked_on_first_rank(
    path: Path | str, label: str, wait: bool = True
) -> AbstractContextManager[bool]:
    """Hold a file lock on the first rank for the block; all ranks enter and leave it together."""
    return entered_on_first_rank(locked(path, label, wait))
