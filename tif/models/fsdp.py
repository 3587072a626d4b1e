"""FSDP2 (`trainer.strategy=fsdp2`): cut a model into shards, one for each process.

Called by `tif.training` for the policy and for a frozen reference. Weights, gradients and the
optimizer's state are in shards. The first process reads the weights; the others build the model
without memory (meta device) and receive their shards from it. PyTorch's `fully_shard` and
Lightning's ModelParallelStrategy do the work.
"""

from typing import TYPE_CHECKING

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tif.utils import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard_model(
    model: "PreTrainedModel", mesh: DeviceMesh, device: torch.device, precision: str
) -> None:
    """Cut the model into shards, in place.

    Each decoder block is a unit of its own: one at a time is gathered to compute with it.

    Args:
        model: on the CPU with its weights in the first process, on the meta device in the others.
        mesh: the processes that share it.
        device: of this process.
        precision: trainer.precision. Under bf16-mixed blocks are gathered and computed in
            bfloat16, and gradients are added in float32.
    """
    is_first = distributed.is_first_rank()
    weights = model.state_dict() if is_first else {}
    buffers = {name: value.clone() for name, value in model.named_buffers()} if is_first else {}
    is_trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.to(torch.device("meta"))  # type: ignore[arg-type]
    model.tie_weights()  # the move separates tied weights
    _mark_shards(model, mesh, precision)
    model.to_empty(device=device)
    model.tie_weights()
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_trained[name])
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, weights, options=options)
    for name, value in model.named_buffers():  # rotary frequencies are in no state dict
        if is_first:
            value.copy_(buffers[name])
        torch.distributed.broadcast(value, src=0)


def _mark_shards(model: "PreTrainedModel", mesh: DeviceMesh, precision: str) -> None:
    """Call `fully_shard` on each decoder block, then on the rest."""
    mixed = MixedPrecisionPolicy()
    if precision == "bf16-mixed":
        mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    block_classes = set(model._no_split_modules or ())
    blocks = [module for module in model.modules() if type(module).__name__ in block_classes]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=mixed)
    fully_shard(model, mesh=mesh, mp_policy=mixed)
