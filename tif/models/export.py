"""Write the policy as a plain model folder that transformers alone can load.

Called by training's callbacks at the end (`model/`) and at the best epoch (`model_best/`). Shards
are gathered by torch, adapters merged by peft, quantised weights turned into numbers by peft's
helper for bitsandbytes (transformers' `dequantize()` changes the model in place, on its device; the
policy goes on training).
"""

import copy
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from tif.models.lora import ADAPTER_NAME, save_adapters
from tif.utils import distributed
from tif.utils.files import os_errors_naming

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_model(
    policy: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    card: str,
    merge: bool = True,
) -> None:
    """Write policy, tokenizer and model card to `folder`, whole or not at all.

    All processes call together, since the policy may be in shards; the first one writes.

    Args:
        policy: may hold adapters, shards or bitsandbytes' layers, and stays as it is.
        tokenizer: goes with it.
        folder: replaced where it exists.
        card: text of README.md.
        merge: with LoRA, write one plain model; False: the adapters alone, in peft's format.
    """
    has_adapters = bool(getattr(policy, "peft_config", None))
    weights = None
    if has_adapters or isinstance(policy, FSDPModule):
        weights = gather_weights(policy)
    if not distributed.is_first_rank():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with os_errors_naming(folder):
            if has_adapters and not merge:
                save_adapters(policy, partial, weights)
            else:
                model = policy if weights is None else build_plain_model(policy, weights)
                model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def gather_weights(policy: "PreTrainedModel") -> dict[str, torch.Tensor]:
    """Return a copy of the policy's state dict on the CPU, in which no weight is cut or quantised.

    Empty in all processes but the first. Beside the result, one more weight is in memory.
    """
    weights: Any = {}
    if isinstance(policy, FSDPModule):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(policy, options=options)
    elif distributed.is_first_rank():
        weights = policy.state_dict()
    parameters = dict(policy.named_parameters())
    for name, value in weights.items():
        if type(parameters.get(name)).__name__ in ("Params4bit", "Int8Params"):
            value = _dequantize(policy, name)
        # Each a copy of its own: a merge changes weights in place, also those that are tied.
        weights[name] = value.to("cpu", copy=True)
    return dict(weights)


def _dequantize(policy: "PreTrainedModel", name: str) -> torch.Tensor:
    """Return the numbers that a weight of bitsandbytes stands for, in the policy's dtype."""
    from peft.utils.integrations import dequantize_bnb_weight

    layer = policy.get_submodule(name.rpartition(".")[0])
    weight = policy.get_parameter(name)
    return dequantize_bnb_weight(weight, getattr(layer, "state", None)).to(policy.dtype)


def build_plain_model(
    policy: "PreTrainedModel", weights: dict[str, torch.Tensor]
) -> "PreTrainedModel":
    """Return a model of the policy's class with these weights, its adapters merged, to be saved.

    Args:
        policy: gives class, configuration and adapters.
        weights: of `gather_weights`; the result takes them over.
    """
    from peft.tuners.lora import LoraLayer, LoraModel

    # fully_shard puts a class of its own before the model's.
    classes: list[Any] = [cls for cls in type(policy).__mro__ if not issubclass(cls, FSDPModule)]
    config = copy.deepcopy(policy.config)
    config.__dict__.pop("quantization_config", None)
    adapters = copy.deepcopy(getattr(policy, "peft_config", None))
    with torch.device("meta"):  # shapes without memory, and no random numbers drawn
        model: Any = classes[0](config)
        tuner = LoraModel(model, adapters, ADAPTER_NAME) if adapters else None
    model.load_state_dict(weights, strict=False, assign=True)
    if not isinstance(model.get_output_embeddings(), LoraLayer):  # else the merge unties it
        model.tie_weights()
    empty = [name for name, weight in model.named_parameters() if weight.is_meta]
    assert not empty, f"weights without numbers: {empty}"
    if tuner:
        model = tuner.merge_and_unload()
    model.generation_config = policy.generation_config
    plain: PreTrainedModel = model
    return plain
