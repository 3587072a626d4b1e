"""Run a function in several processes of one group (gloo, CPU).

They are forked from a server that has imported torch once.
"""

import multiprocessing
import os
import tempfile

import torch
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401 -- imported once, by the server

import tif.evaluation  # noqa: F401

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.process_groups"])


def together(world, work, *args):
    """Return the results of `work(*args)` in each of `world` processes, by rank.

    `work` must be a function at the top level of a module.
    """
    with tempfile.TemporaryDirectory() as folder, _context.Manager() as manager:
        results = manager.dict()
        group = [
            _context.Process(target=_child, args=(rank, world, folder, results, work, args))
            for rank in range(world)
        ]
        for process in group:
            process.start()
        for process in group:
            process.join(300)
            assert process.exitcode == 0, f"a process ended with {process.exitcode}"
        return [results[rank] for rank in range(world)]


def _child(rank, world, folder, results, work, args):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world
    )
    results[rank] = work(*args)
    if dist.is_initialized():  # a command leaves the group itself
        dist.barrier()
        dist.destroy_process_group()
