"""FSDP2 (`trainer.strategy=fsdp2`): cut a model into shards, one for each process.

Called by `tif.training` for the policy and for a frozen reference. The first process reads the
weights; the others build the model without memory and receive their shards from it. PyTorch's
`fully_shard` and Lightning's ModelParallelStrategy do the rest.
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
    """Cut the model into shards, in place, each decoder block a unit of its own.

    In the first process the model is on the CPU with its weights, in the others on the meta device.
    `precision`: trainer.precision; under bf16-mixed, gradients are added in float32.
    """
    is_first = distributed.is_first_rank()
    weights = model.state_dict() if is_first else {}
    buffers = {name: value.clone() for name, value in model.named_buffers()} if is_first else {}
    tied = list_tied_weights(model)
    model.to(torch.device("meta"))  # type: ignore[arg-type]
    tie(model, tied)  # the move separates them
    mixed = (torch.bfloat16, torch.float32) if precision == "bf16-mixed" else (None, None)
    policy = MixedPrecisionPolicy(*mixed)
    blocks = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    for module in [*blocks, model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    model.to_empty(device=device)
    tie(model, tied)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, weights, options=options)
    for name, value in model.named_buffers():  # rotary frequencies are in no state dict
        if is_first:
            value.copy_(buffers[name])
        torch.distributed.broadcast(value, src=0)


def list_tied_weights(model: torch.nn.Module) -> list[tuple[str, str]]:
    """Return (name, name of the weight that it is) of tied weights.

    transformers' `tie_weights` does not find a head with an adapter.
    """
    first_names: dict[int, str] = {}
    tied = []
    for name, weight in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(weight), name)
        if first != name:
            tied.append((name, first))
    return tied


def tie(model: torch.nn.Module, tied: list[tuple[str, str]]) -> None:
    """Make these weights one again, in place."""
    for name, first in tied:
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, model.get_parameter(first))
