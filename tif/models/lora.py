"""LoRA adapters in the policy: attach them, switch them off, save them alone.

Called by `load` (a new policy), `references` (the original model is the policy without adapters)
and `export`. The layers are peft's, put into the policy by `inject_adapter_in_model`.

Two other ways were tried. transformers' `add_adapter`, `disable_adapters` and `save_pretrained` do
the same, but refuse peft below 0.22, which is not released (transformers 5.24, peft 0.21.2).
peft's `get_peft_model` wraps the policy in another class and renames all its weights: checkpoints,
FSDP2 and everything that reads the model would have to know of adapters.
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

    Args:
        policy: keeps its class and the names of its other weights.
        settings: section `model.lora`, with rank > 0.
        seed: the adapters' weights are drawn from it, in the policy's dtype, and kept in float32.

    Raises:
        ConfigError: If a name in `targets` is none of the model's linear layers.
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
    """Raise ConfigError where a target is no linear layer of the policy; peft ignores such names."""
    from transformers.pytorch_utils import Conv1D

    names = set()
    for name, layer in policy.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            names.add(name.rpartition(".")[2])
    unknown = sorted(set(targets) - names)
    if unknown:
        raise ConfigError(
            f"model.lora.targets: no linear layer is called {', '.join(unknown)}; the model has "
            f"{', '.join(sorted(names))}"
        )


@contextlib.contextmanager
def adapters_disabled(policy: torch.nn.Module) -> Iterator[None]:
    """Let the policy compute without its adapters inside the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapters(
    policy: "PreTrainedModel", folder: Path, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapters alone, in peft's format, for `PeftModel.from_pretrained(model, folder)`.

    Args:
        policy: with adapters.
        folder: made where it is missing.
        weights: the policy's state dict where its own holds shards.
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
