"""LoRA through peft: adapters in the policy, and the reference that they leave as it was."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError
from tif.config.model import Lora
from tif.data.encoding import Batch
from tif.scoring.token_scores import TokenScores, token_scores
from tif.utils.torch_state import evaluation_mode, seeded

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

NAME = "default"  # of the one adapter, as peft calls it


def attach_adapters(policy: "PreTrainedModel", cfg: Lora, seed: int) -> None:
    """Put adapters into the policy, in place; they alone are trained, from `seed`, in float32.

    The policy stays a model of its own class: what reads and runs it need not know of adapters.

    Raises:
        ConfigError: If a name in `targets` is none of the model's layers.
    """
    import transformers
    from peft import inject_adapter_in_model

    linear = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    names = {name.rpartition(".")[2] for name, layer in policy.named_modules() if isinstance(layer, linear)}
    if unknown := sorted(set(cfg.targets) - names):
        raise ConfigError(f"model.lora.targets: no linear layer is called {', '.join(unknown)}; the model has "
                          f"{', '.join(sorted(names))}")  # fmt: skip
    with seeded(seed):
        inject_adapter_in_model(_config(cfg), policy, NAME)
    for weight in policy.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _config(cfg: Lora) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,  # type: ignore[arg-type]
        lora_dropout=cfg.dropout,
        target_modules=list(cfg.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )


def save(policy: "PreTrainedModel", folder: Path) -> None:
    """The adapters alone, in peft's format: `PeftModel.from_pretrained(model, folder)` puts them on the model again."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.copy(policy.peft_config[NAME])
    config.base_model_name_or_path, config.inference_mode = policy.name_or_path or None, True
    config.save_pretrained(folder)
    found = get_peft_model_state_dict(policy, adapter_name=NAME)
    save_file({f"base_model.model.{name}": value.contiguous() for name, value in found.items()},
              folder / "adapter_model.safetensors", {"format": "pt"})  # fmt: skip


@contextlib.contextmanager
def switched_off(policy: torch.nn.Module) -> Iterator[None]:
    """The policy as it was before its adapters learned anything, inside."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in policy.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class AdapterReference:
    """The policy with its adapters off: exact for any input, and no second model in memory."""

    def __init__(self, policy: "PreTrainedModel", batching: str) -> None:
        self.model, self.batching = _Original(policy), batching

    def on(self, device: torch.device) -> torch.nn.Module:
        """The original model; it is where the policy is."""
        return self.model

    def scores(self, batch: Batch) -> TokenScores:
        """One forward of the policy without its adapters; any batch will do."""
        with torch.no_grad():
            return token_scores(self.model, batch, self.batching)


class _Original(torch.nn.Module):
    """Calls the policy with its adapters off, in evaluation mode, without gradients."""

    def __init__(self, policy: "PreTrainedModel") -> None:
        super().__init__()
        self._policy = [policy]  # a list, so that the policy is no submodule

    def forward(self, **keys: Any) -> Any:
        (policy,) = self._policy
        with evaluation_mode(policy), switched_off(policy):
            return policy(**keys)
