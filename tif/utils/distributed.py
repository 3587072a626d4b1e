"""The processes of a run: how many there are, what one does for all of them, how more of them are started.

srun and torchrun start processes of their own; where neither did and a configuration asks for more than one device,
`launch` starts them as torchrun does. Everything else is the same for all three.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def is_first() -> bool:
    """Whether this is the process that writes files and speaks; true where there is one alone."""
    return rank() == 0


@functools.cache
def rank() -> int:
    """Number of this process among all, from 0."""
    return int(os.environ.get("RANK", _slurm("PROCID", 0)))


@functools.cache  # Lightning takes WORLD_SIZE away when a trainer is done, and stages have trainers of their own
def size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", _slurm("NTASKS", 1)))


@functools.cache
def local_size() -> int:
    """Number of processes on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size() // _slurm("STEP_NUM_NODES", 1)))


def _slurm(name: str, alone: int) -> int:
    # In a batch script, before srun, SLURM_NTASKS is set too; only a task of a step has SLURM_STEP_NODELIST.
    return int(os.environ.get(f"SLURM_{name}", alone)) if "SLURM_STEP_NODELIST" in os.environ else alone


def launch(module: str, words: Sequence[str], devices: str, accelerator: str) -> int | None:
    """Run the command with a process for each device, where more than one is wanted.

    Args:
        module: of the command, "tif.fit".
        words: the command's.
        devices, accelerator: of section `trainer`.

    Returns:
        The exit code of the process that failed first, 0 if none did; None where one process is enough, this one.
    """
    if size() > 1 or "RANK" in os.environ:
        return None
    count = int(devices) if devices.isdigit() else 1
    if devices in ("auto", "-1") and accelerator != "cpu":
        import torch

        count = torch.cuda.device_count()
    if count < 2:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes say what happened
    where = LaunchConfig(1, 1, count, run_id=f"tif{os.getpid()}", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                         max_restarts=0)  # fmt: skip
    try:
        elastic_launch(where, sys.executable)("-m", module, *words)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def start(accelerator: str) -> None:
    """Join the other processes, once; nothing where there are none.

    srun's variables become those that torch and Lightning read.
    """
    import torch

    if size() == 1 or torch.distributed.is_initialized():
        return
    if "RANK" not in os.environ:
        env, nodes = os.environ, os.environ["SLURM_STEP_NODELIST"]
        job = int(env["SLURM_JOB_ID"])
        env.update(
            RANK=str(rank()), WORLD_SIZE=str(size()), LOCAL_RANK=env["SLURM_LOCALID"], NODE_RANK=env["SLURM_NODEID"],
            LOCAL_WORLD_SIZE=str(local_size()),
            MASTER_ADDR=env.get("MASTER_ADDR", _first_host(nodes)),
            MASTER_PORT=env.get("MASTER_PORT", str(15000 + job % 10000)),
        )  # fmt: skip
    cuda = accelerator != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")


def plugins() -> list[Any]:
    """For lightning.Trainer: the processes are there; of SLURM's signals it is to know nothing."""
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

    return [TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()]


def device(accelerator: str) -> Any:
    """The torch.device of this process."""
    import torch

    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if accelerator in ("auto", "mps") and torch.backends.mps.is_available() else "cpu")


def finish() -> None:
    """Leave the other processes."""
    if size() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        with contextlib.suppress(Exception):  # the others may be gone after an error
            torch.distributed.destroy_process_group()


def once(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, in all of them; what it raises, too. The others wait.

    The result is pickled, so keep it small.
    """
    if size() == 1:
        return make()
    import torch

    told: list[Any] = [None, None]
    if is_first():
        try:
            told[0] = make()
        except Exception as error:
            told[1] = error
    torch.distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    found: T = told[0]
    return found


def barrier() -> None:
    """Wait for all processes."""
    once(lambda: None)


def _first_host(nodes: str) -> str:
    """First host of SLURM's list: "n[03-05,9],m1" -> "n03"."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return nodes.split(",")[0]
    return head + rest.split("]")[0].split(",")[0].split("-")[0]
