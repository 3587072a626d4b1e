"""LoRA adapters in the policy: attach them, switch them off, save them alone.

Called by `load`, `references` and `export`. The layers are peft's. transformers' `add_adapter`,
`disable_adapters` and `save_pretrained` refuse peft below 0.22, which is not released (seen with
transformers 5.24, peft 0.21.2). peft's `get_peft_model` wraps the policy in a class of its own and
renames its weights; checkpoints, FSDP2 and scoring would have to know of it.
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
    """Put adapters, drawn from the seed in float32, into the policy; from then on only they learn.

    Raises:
        ConfigError: If a name in `model.lora.targets` is none of the policy's linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    names = set()
    for name, layer in policy.named_modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            names.add(name.rpartition(".")[2])
    unknown = ", ".join(sorted(set(settings.targets) - names))
    if unknown:  # peft ignores a wrong name beside a right one
        known = ", ".join(sorted(names))
        problem = f"no linear layer is called {unknown}; the model has {known}"
        raise ConfigError(f"model.lora.targets: {problem}")
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,  # type: ignore
        target_modules=list(settings.targets) or "all-linear", task_type="CAUSAL_LM",
    )  # fmt: skip
    with seeded(seed):
        inject_adapter_in_model(config, policy, ADAPTER_NAME)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


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
