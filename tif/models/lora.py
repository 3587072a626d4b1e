"""LoRA adapters in the policy: attach them, switch them off, save them alone.

Called by `load` (a new policy), `references` (the original is the policy without adapters) and
`export`. The layers are peft's. Two other ways were tried: transformers' `add_adapter`,
`disable_adapters` and `save_pretrained` refuse peft below 0.22, which is not released (seen with
transformers 5.24, peft 0.21.2); peft's `get_peft_model` wraps the policy in a class of its own and
renames its weights, and checkpoints, FSDP2 and scoring would have to know of it.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tif.config.errors import ConfigError
from tif.config.model import Lora
from tif.utils.torch_state import seeded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_NAME = "default"  # as peft calls a single adapter


def attach_adapters(policy: "PreTrainedModel", settings: Lora, seed: int) -> None:
    """Put adapters into the policy, in place; from then on only they are trained.

    They are drawn from the seed and kept in float32.

    Raises:
        ConfigError: If a name in `model.lora.targets` is none of the policy's linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _check_targets(policy, settings.targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    with seeded(seed):
        inject_adapter_in_model(config, policy, ADAPTER_NAME)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _check_targets(policy: "PreTrainedModel", targets: list[str]) -> None:
    """Raise ConfigError where a target is no linear layer; peft would ignore it beside others."""
    from transformers.pytorch_utils import Conv1D

    names = set()
    for name, layer in policy.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            names.add(name.rpartition(".")[2])
    unknown = ", ".join(sorted(set(targets) - names))
    if unknown:
        known = ", ".join(sorted(names))
        raise ConfigError(
            f"model.lora.targets: no linear layer is called {unknown}; the model has {known}"
        )


def has_adapters(model: torch.nn.Module) -> bool:
    """Return whether `attach_adapters` was called on the model."""
    return bool(getattr(model, "peft_config", None))


@contextlib.contextmanager
def adapters_disabled(model: torch.nn.Module) -> Iterator[None]:
    """Let a model compute without its adapters inside the block; nothing where it has none."""
    if not has_adapters(model):
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(
    policy: "PreTrainedModel", folder: Path, weights: Mapping[str, torch.Tensor]
) -> None:
    """Write the adapters alone, in the format of peft's `PeftModel.from_pretrained`.

    Args:
        policy: gives their configuration.
        folder: made where it is missing.
        weights: the policy's state dict, without shards.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = copy.copy(policy.peft_config[ADAPTER_NAME])
    config.base_model_name_or_path = policy.name_or_path or None
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    adapters = get_peft_model_state_dict(policy, state_dict=weights, adapter_name=ADAPTER_NAME)
    tensors = {f"base_model.model.{name}": value.contiguous() for name, value in adapters.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
