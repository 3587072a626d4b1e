"""Write the policy as a model folder that transformers alone can load.

torch gathers shards, peft merges adapters and turns bitsandbytes' few bits into numbers
(transformers' `dequantize()` does that in place, but the policy goes on training).
"""

import copy
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from tif.config.errors import ConfigError
from tif.config.model import Lora
from tif.models.lora import (
    ADAPTER_NAME,
    check_adapter_files,
    has_adapters,
    has_few_bits,
    save_adapters,
)
from tif.utils import distributed
from tif.utils.files import os_errors_naming, sync, use_default_mode
from tif.utils.terminal import file_bar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_export(model: "PreTrainedModel", lora: Lora) -> None:
    """Raise ConfigError if what `export_model` writes of the model could not be read again.

    The model is on the meta device, with its adapters.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind, has_own_code = model.config.model_type, hasattr(model.config, "auto_map")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not has_own_code:
        problem = f"AutoModelForCausalLM does not read the {kind} that would be exported of it"
        raise ConfigError(f"model.path: {problem}; want another model, or run.export=false")
    if has_adapters(model) and not lora.merge:
        check_adapter_files(model)


def export_model(
    policy: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, card: str,
    merge: bool = True,
) -> None:  # fmt: skip
    """Replace `folder` by one with policy, tokenizer and card, or leave it as it is on an error.

    All processes call together, since the policy may be in shards; the first one writes. The policy
    does not change. `card`: text of README.md. `merge`: with LoRA, write one plain model; False:
    the adapters alone, in peft's format.
    """
    weights = None
    if has_adapters(policy) or isinstance(policy, FSDPModule):
        weights = gather_weights(policy)
    if not distributed.is_first_rank():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        size = sum(tensor.nbytes for tensor in (weights or policy.state_dict()).values())
        with os_errors_naming(folder), file_bar(f"writing {folder.name}", partial, size):
            if weights is None:
                policy.save_pretrained(partial)
            elif merge or not has_adapters(policy):
                build_plain_model(policy, weights).save_pretrained(partial)
            else:
                save_adapters(policy, partial, weights)
            tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
            for file in list(partial.iterdir()):
                use_default_mode(file)
                sync(file)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def gather_weights(policy: "PreTrainedModel") -> dict[str, torch.Tensor]:
    """Return a copy of the policy's state dict on the CPU, without shards and few bits.

    Empty in all processes but the first. Beside the result, one more weight is in memory.
    """
    from peft.utils.integrations import dequantize_bnb_weight

    weights: Any = {}
    if isinstance(policy, FSDPModule):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(policy, options=options)
    elif distributed.is_first_rank():
        weights = policy.state_dict()
    parameters: dict[str, Any] = dict(policy.named_parameters())
    for name, value in weights.items():
        if type(parameters.get(name)).__name__ in ("Params4bit", "Int8Params"):
            state = getattr(policy.get_submodule(name.rpartition(".")[0]), "state", None)
            value = dequantize_bnb_weight(parameters[name], state).to(policy.dtype)
        # A copy of its own, also of tied weights: a merge adds to weights in place.
        weights[name] = value.to("cpu", copy=True)
    return dict(weights)


def build_plain_model(policy: "PreTrainedModel", weights: dict[str, torch.Tensor]) -> Any:
    """Return a model like the policy with these weights, its adapters merged, to be saved."""
    from peft.tuners.lora import LoraLayer, LoraModel
    from transformers.pytorch_utils import Conv1D

    # fully_shard puts a class of its own before the model's.
    classes: list[Any] = [cls for cls in type(policy).__mro__ if not issubclass(cls, FSDPModule)]
    config, tuner = copy.deepcopy(policy.config), None
    config.__dict__.pop("quantization_config", None)
    config.dtype = policy.dtype  # saving turns it into a text, which some models cannot read
    with torch.device("meta"):  # shapes without memory, and no random numbers drawn
        model = classes[0](config)
        if has_adapters(policy):
            adapters: Any = copy.deepcopy(policy.peft_config)
            tuner = LoraModel(model, adapters, ADAPTER_NAME)
    for name, layer in model.named_modules():
        if isinstance(layer, Conv1D) and has_few_bits(policy.get_submodule(name)):
            # bitsandbytes has no such layer: it keeps a Linear, the other way round
            weights[f"{name}.weight"] = weights[f"{name}.weight"].T.contiguous()
    model.load_state_dict(weights, strict=False, assign=True)
    if not isinstance(model.get_output_embeddings(), LoraLayer):  # else the merge unties it
        model.tie_weights()
    assert not any(weight.is_meta for weight in model.parameters()), "weights without numbers"
    model = tuner.merge_and_unload() if tuner else model
    model.generation_config = policy.generation_config
    return model
