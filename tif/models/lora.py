"""LoRA adapters in the policy: attach them, switch them off, save them alone.

Called by `load`, `references` and `export`. The layers are peft's. transformers' `add_adapter`,
`disable_adapters` and `save_pretrained` refuse peft below 0.22, which is not released (seen with
transformers 5.25, peft 0.21.2). peft's `get_peft_model` wraps the policy in a class of its own and
renames its weights; checkpoints, FSDP2 and scoring would have to know of it.
"""

import contextlib
import copy
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.config.model import Lora
from tif.data.encoding import Batch
from tif.scoring.token_scores import score_tokens
from tif.utils.terminal import console
from tif.utils.torch_state import find_in_code, seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_NAME = "default"  # as peft calls a single adapter
# How a module's code reads the weight of a layer in it, or turns numbers into the weight's dtype.
# Not Bloom's slices: `attach_adapters` refuses the option under which it reads them.
WEIGHT_READ = r"self\.(\w+)\.(?:weight|bias)\b(?!\.(?:dtype|device|shape)| is |\[)"
CAST_TO_WEIGHT = r"\.to\((?:dtype=)?self\.(\w+)\.weight\.dtype\)"


def attach_adapters(policy: "PreTrainedModel", settings: Lora, seed: int) -> None:
    """Put adapters, drawn from the seed in float32, into the policy; from then on only they learn.

    Without targets all linear layers but the head get one and, where peft knows them, the fused
    experts and routers of a mixture of experts. Layers that no adapter fits are left out.

    Raises:
        ConfigError: If a name in `model.lora.targets` is no linear layer that an adapter fits, or
            peft cannot put adapters on these layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if getattr(policy.config, "slow_but_exact", False):
        problem = "slow_but_exact in its config.json makes Bloom read weights past the adapters"
        raise ConfigError(f"model.lora.rank: {problem}; want it false there, it changes no number")
    fitting, others = list_linear_layers(policy)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,  # type: ignore
        target_modules=list(settings.targets) or "all-linear", exclude_modules=others or None,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    names = sorted({name.rpartition(".")[2] for name in fitting})
    problem = ""
    try:
        with seeded(seed), warnings.catch_warnings(action="ignore"):
            inject_adapter_in_model(config, policy, ADAPTER_NAME)
    except ValueError as error:
        problem = f"model.lora.targets: {one_line(error)}; want some of {', '.join(names)}"
        if "lora_dropout" in str(error):
            problem = (
                f"model.lora.dropout: got {settings.dropout}, but the adapters of fused experts "
                "and routers have none; want 0, or model.lora.targets without these"
            )
    # peft ignores a wrong name beside a right one; those of fused experts it has taken out.
    unknown = sorted(set(config.target_modules or ()) & set(settings.targets) - set(names))
    if unknown:
        wrong, known = ", ".join(unknown), ", ".join(names)
        problem = f"model.lora.targets: no layer for adapters is called {wrong}; want {known}"
    if problem:
        raise ConfigError(problem)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def list_linear_layers(policy: "PreTrainedModel") -> tuple[list[str], list[str]]:
    """Return the names of the linear layers that an adapter fits, and of the others.

    It does not fit where the merged export would differ from the policy: on a layer with a forward
    of its own (the routers of Phi-MoE and Llama-4), on a weight that several layers share, and
    where the model's code reads the layer's weight (`dt_proj` of Mamba), past the adapter. Nor is
    there one for `out_proj` of Falcon-Mamba, which peft 0.21 refuses.
    """
    from transformers.models.falcon.modeling_falcon import FalconLinear
    from transformers.pytorch_utils import Conv1D

    layers: dict[str, Any] = {}
    for name, layer in policy.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            layers[name] = layer
    owners = Counter(id(layer.weight) for layer in layers.values())
    plain_classes = (torch.nn.Linear, Conv1D, FalconLinear)
    fitting: list[str] = []
    others: list[str] = []
    for name, layer in layers.items():
        is_plain = type(layer) in plain_classes or has_few_bits(layer)
        is_read = is_weight_read(policy, name, WEIGHT_READ)
        is_refused = name.endswith("out_proj") and policy.config.model_type == "falcon_mamba"
        is_fitting = is_plain and not is_read | is_refused and owners[id(layer.weight)] == 1
        (fitting if is_fitting else others).append(name)
    return fitting, others


def has_few_bits(layer: torch.nn.Module) -> bool:
    """Return whether a layer is one of bitsandbytes."""
    return type(layer).__module__.startswith("bitsandbytes")


def is_weight_read(model: torch.nn.Module, name: str, pattern: str) -> bool:
    """Return whether the module around a layer has code that matches, with the layer's name."""
    parent, _, attribute = name.rpartition(".")
    return attribute in find_in_code(model.get_submodule(parent), pattern)


def freeze_idle_adapters(
    policy: "PreTrainedModel", targets: Sequence[str], batch: Batch, batching: str
) -> None:
    """Freeze adapters that text does not reach, as those of a vision tower, and say which.

    They would stay zero, and DistributedDataParallel would wait for their gradients. Experts to
    which this text is not sent learn all the same. Linear layers and stacks of experts that
    `targets` mean but that have no adapter are named too.

    Args:
        policy: with adapters, as it will be trained.
        targets: model.lora.targets.
        batch, batching: a text as it will be trained on.

    Raises:
        ConfigError: If no adapter gets a gradient.
    """
    with seeded(0), torch.enable_grad():
        total = score_tokens(policy, batch, batching).logprob.sum()
        if total.requires_grad:
            total.backward()
    adapters = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    idle = []
    for name, weight in adapters.items():
        if weight.grad is None and ".experts." not in name:
            weight.requires_grad_(False)
            idle.append(name.partition(".lora_")[0])
        weight.grad = None
    if not any(weight.requires_grad for weight in adapters.values()):
        problem = f"no adapter of {type(policy).__name__} gets a gradient"
        raise ConfigError(f"model.lora.rank: {problem}; want 0, or other model.lora.targets")
    without = list_weights_without_adapters(policy, targets)
    for text, names in (("no adapters on", without), ("adapters that learn nothing on", idle)):
        names = list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
        if names:
            more = f" and {len(names) - 4} more" if names[4:] else ""
            line = f"LoRA: {text} {', '.join(names[:4])}{more}"
            console.print(line, soft_wrap=True)


def list_weights_without_adapters(policy: "PreTrainedModel", targets: Sequence[str]) -> list[str]:
    """Return the linear layers and stacks of experts that `targets` mean and that have no adapter.

    No targets mean all but the head.
    """
    from transformers.pytorch_utils import Conv1D

    names = []
    for name, module in policy.named_modules():
        is_linear = isinstance(module, torch.nn.Linear | Conv1D)
        is_inside_adapter = ".base_layer" in name or ".lora_" in name
        if is_inside_adapter or module is policy.get_output_embeddings():
            continue
        for attribute, weight in module.named_parameters(recurse=False):
            is_stack = weight.dim() == 3 and "Conv" not in type(module).__name__
            is_meant = not targets or {attribute, name.rpartition(".")[2]} & set(targets)
            if is_meant and (is_stack or (is_linear and attribute == "weight")):
                names.append(f"{name}.{attribute}".removesuffix(".weight"))
    return names


def has_adapters(model: torch.nn.Module) -> bool:
    """Return whether `attach_adapters` was called on the model."""
    return bool(getattr(model, "peft_config", None))


@contextlib.contextmanager
def adapters_disabled(model: torch.nn.Module) -> Iterator[None]:
    """Let a model compute without its adapters, if it has any, inside the block."""
    layers = []
    if has_adapters(model):
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def check_adapter_files(model: "PreTrainedModel") -> None:
    """Raise ConfigError if peft would not find the model's adapters in files of `save_adapters`.

    peft renames what it reads by transformers' rules for checkpoints, some of which also match
    names that are right already.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import transformers_weight_conversion as conversion

    adapters = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME)
    saved = {f"base_model.model.{name}": value for name, value in adapters.items()}
    read = conversion.convert_peft_adapter_state_dict_for_transformers(
        model, model.peft_config[ADAPTER_NAME], saved, ADAPTER_NAME
    )
    if lost := sorted(saved.keys() - read.keys()):
        problem = f"false, but peft would not find {len(lost)} of the adapters again ({lost[0]})"
        raise ConfigError(f"model.lora.merge: {problem}; want true")


def save_adapters(
    policy: "PreTrainedModel", folder: Path, weights: Mapping[str, torch.Tensor]
) -> None:
    """Write the adapters of a state dict without shards, for `PeftModel.from_pretrained`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = copy.copy(policy.peft_config[ADAPTER_NAME])
    config.base_model_name_or_path = policy.name_or_path or None
    config.inference_mode = True
    config.save_pretrained(folder)
    adapters = get_peft_model_state_dict(policy, state_dict=weights, adapter_name=ADAPTER_NAME)
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in adapters.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
