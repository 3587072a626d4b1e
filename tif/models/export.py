"""Export in Hugging Face format: shards gathered, adapters merged, few bits made many; all or nothing."""

import copy
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.models import lora as adapters
from tif.models.lora import NAME
from tif.utils import distributed
from tif.utils.files import os_errors_naming

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save(
    policy: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, card: str, merge: bool = True
) -> None:
    """Write the policy in Hugging Face format (safetensors) with tokenizer and model card; all or nothing.

    All processes call together where the policy is in shards; the first one writes.

    Args:
        merge: with LoRA, write one plain model; False: the adapters alone, in peft's format.
    """
    whole = plain(policy) if merge else policy
    if whole is None or not distributed.is_first_rank():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with os_errors_naming(folder):
            if merge:
                whole.save_pretrained(partial)
            else:
                adapters.save(policy, partial)
            tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def whole(policy: torch.nn.Module, dtype: torch.dtype, keep: bool = True) -> dict[str, torch.Tensor]:
    """The weights of a plain transformers model: shards gathered, few bits made many, adapters merged; on the CPU.

    The policy is left as it is. Layer by layer, so that at most one more layer is in memory beside the result.

    Args:
        policy: may hold adapters, bitsandbytes' layers and FSDP2's shards; all processes call together.
        dtype: of the result.
        keep: False in the processes that only help to gather; their result is empty.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_bnb_weight
    from torch.distributed.tensor import DTensor

    def full(value: Any) -> torch.Tensor:
        return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()

    found: dict[str, torch.Tensor] = {}
    inner: tuple[str, ...] = ()  # what is inside a LoRA layer is read with it
    for name, module in policy.named_modules():
        if name.startswith(inner) and inner:
            continue
        layer, tensors = module, dict(module.named_parameters(recurse=False))
        tensors |= {k: v for k, v in module.named_buffers(recurse=False) if k in module.state_dict(keep_vars=True)}
        delta: torch.Tensor | None = None
        if isinstance(module, LoraLayer):
            inner = (f"{name}.",)
            layer = module.get_base_layer()
            tensors = dict(layer.named_parameters(recurse=False))
            a, b = (full(part[NAME].weight).float() for part in (module.lora_A, module.lora_B))
            delta = (b @ a) * module.scaling[NAME]
            delta = delta.T if getattr(module, "fan_in_fan_out", False) else delta
        for key, value in tensors.items():
            if key == "weight" and type(value).__name__ in ("Params4bit", "Int8Params"):
                value = dequantize_bnb_weight(value, getattr(layer, "state", None))
            value = full(value)
            if key == "weight" and delta is not None:
                value = value.float() + delta
            if keep:
                made = value.to("cpu", dtype if value.is_floating_point() else value.dtype, copy=True)
                found[f"{name}.{key}" if name else key] = made.contiguous()
    return found


def plain(policy: "PreTrainedModel") -> "PreTrainedModel | None":
    """The policy without adapters, few bits and shards: itself where it has none, else a copy on the CPU.

    None in a process that only helped to gather. Tied weights stay tied.
    """
    from torch.distributed.fsdp import FSDPModule
    from transformers import PreTrainedModel

    shards = isinstance(policy, FSDPModule)
    if not shards and not getattr(policy, "peft_config", None):
        return policy if distributed.is_first_rank() else None
    if not shards and not distributed.is_first_rank():
        return None
    state = whole(policy, policy.dtype, keep=distributed.is_first_rank())
    if not distributed.is_first_rank():
        return None
    own = next(c for c in type(policy).__mro__ if issubclass(c, PreTrainedModel) and not issubclass(c, FSDPModule))
    config = copy.deepcopy(policy.config)
    config.__dict__.pop("quantization_config", None)
    with torch.device("meta"):
        made = own(config)
    made.load_state_dict(state, strict=False, assign=True)
    made.tie_weights()
    missing = [name for name, weight in made.named_parameters() if weight.is_meta]
    assert not missing, missing
    made.generation_config = policy.generation_config
    return made
