"""LoRA through peft: adapters in the policy, the reference that they leave as it was, and weights as a whole again."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif import distributed
from tif.config import ConfigError
from tif.data.encode import Batch
from tif.models import frozen, seeded
from tif.schema_model import Lora
from tif.scoring import TokenScores, token_scores

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

NAME = "default"  # of the one adapter, as peft calls it


def attach(policy: "PreTrainedModel", cfg: Lora, seed: int) -> None:
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
        with frozen(policy), switched_off(policy):
            return policy(**keys)


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
        return policy if distributed.is_first() else None
    if not shards and not distributed.is_first():
        return None
    state = whole(policy, policy.dtype, keep=distributed.is_first())
    if not distributed.is_first():
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
