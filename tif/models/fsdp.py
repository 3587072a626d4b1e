"""FSDP2: weights, gradients and optimizer in shards, one a process; `trainer.strategy=fsdp2`.

The first process reads the weights, the others make the model without memory (meta device) and get their shards from
it. PyTorch's `fully_shard` and Lightning's ModelParallelStrategy do the work.
"""

from typing import TYPE_CHECKING

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from tif.utils import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard(policy: "PreTrainedModel", mesh: DeviceMesh, device: torch.device, precision: str) -> None:
    """Cut the policy into shards, in place: each decoder block on its own, so that one at a time is whole in memory.

    Args:
        policy: in the first process with its weights on the CPU, in the others on the meta device.
        mesh: of the processes that share it.
        device: of this process.
        precision: trainer.precision; under bf16-mixed blocks are gathered and run in bfloat16, gradients added in
            float32.
    """
    first = distributed.is_first_rank()
    weights = policy.state_dict() if first else {}
    buffers = {name: value.clone() for name, value in policy.named_buffers()} if first else {}
    training = {name: weight.requires_grad for name, weight in policy.named_parameters()}
    policy.to(torch.device("meta"))  # type: ignore[arg-type]
    policy.tie_weights()  # moving took tied weights apart
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16-mixed" else MixedPrecisionPolicy()
    names = set(policy._no_split_modules or ())
    for block in [m for m in policy.modules() if type(m).__name__ in names]:
        fully_shard(block, mesh=mesh, mp_policy=mixed)
    fully_shard(policy, mesh=mesh, mp_policy=mixed)
    policy.to_empty(device=device)
    policy.tie_weights()
    for name, weight in policy.named_parameters():
        weight.requires_grad_(training[name])
    set_model_state_dict(policy, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True,
                                                                   strict=False))  # fmt: skip
    for name, value in policy.named_buffers():  # those that no state dict has, as rotary frequencies
        if first:
            value.copy_(buffers[name])
        torch.distributed.broadcast(value, src=0)
