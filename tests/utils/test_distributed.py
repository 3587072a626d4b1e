"""Ranks of srun, one process for one device, work of the first rank, locks of all ranks."""

import os

import filelock
import lightning.fabric  # noqa: F401  it reads the rank once, here and not in a test that sets another
import pytest

from tests.support.process_groups import together
from tif.utils import distributed

CACHED = (distributed.rank, distributed.world_size, distributed.local_world_size)


@pytest.fixture
def srun_task(monkeypatch):
    """The environment of the second of two tasks of srun, and no ranks remembered from before."""
    task = {"PROCID": 1, "NTASKS": 2, "LOCALID": 1, "NODEID": 0, "JOB_ID": 1234567}
    environ = {f"SLURM_{name}": str(value) for name, value in task.items()}
    monkeypatch.setattr(os, "environ", environ | {"SLURM_STEP_NODELIST": "n1"})
    for function in CACHED:
        function.cache_clear()
    yield os.environ
    for function in CACHED:
        function.cache_clear()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n[03-05,9],m1", "n03"),
        ("a,b", "a"),
        ("gpu-a[1,4]", "gpu-a1"),
        ("x,n[1-2]", "x"),
    ],
)
def test_the_ranks_meet_at_the_first_node_of_slurm(srun_task, nodes, first):
    srun_task["SLURM_STEP_NODELIST"] = nodes
    distributed._translate_slurm_variables()
    assert (srun_task["MASTER_ADDR"], srun_task["MASTER_PORT"]) == (first, str(15000 + 4567))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "LOCAL_WORLD_SIZE")
    assert [srun_task[name] for name in names] == ["1", "2", "1", "0", "2"]


def test_one_process_is_enough_for_one_device():
    for devices in ("1", "auto"):
        assert distributed.launch("tif.fit", [], devices, "cpu") is None


def test_a_single_process_runs_the_work_of_the_first_rank():
    assert distributed.run_on_first_rank(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        distributed.run_on_first_rank(lambda: 1 // 0)


def fail_on_the_first_rank():
    try:
        distributed.run_on_first_rank(lambda: 1 // 0)
    except ZeroDivisionError as error:
        return str(error)


def name_of_the_first_rank():
    return distributed.run_on_first_rank(lambda: f"rank {distributed.rank()}")


def is_locked_inside_and_after(path):
    """Whether another lock of the file is refused inside the block, and after it, on this rank."""

    def is_locked():
        try:
            filelock.FileLock(path, is_singleton=False).acquire(timeout=0).lock.release()
        except filelock.Timeout:
            return True
        return False

    with distributed.locked_on_first_rank(path, "a file"):
        inside = is_locked()
        distributed.barrier()
    distributed.barrier()
    return inside, distributed.run_on_first_rank(is_locked)


@pytest.mark.slow
def test_all_ranks_get_the_result_or_the_error_of_the_first(tmp_path):
    assert together(2, name_of_the_first_rank) == ["rank 0", "rank 0"]
    first, second = together(2, fail_on_the_first_rank)
    assert first
    assert first == second


@pytest.mark.slow
def test_all_ranks_are_inside_while_the_first_holds_the_lock(tmp_path):
    assert together(2, is_locked_inside_and_after, tmp_path / "x.lock") == [(True, False)] * 2
