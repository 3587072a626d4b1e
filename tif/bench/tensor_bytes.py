"""Count bytes: of tensors, and of what a forward keeps for its backward pass.

Called by what=memory.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from tif.config.schema import Lora
from tif.models.lora import attach_adapters

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def count_bytes(tensors: Iterable[torch.Tensor]) -> float:
    """Return the sum of the tensors' sizes."""
    return float(sum(tensor.numel() * tensor.itemsize for tensor in tensors))


def make_meta_model(
    config: "PretrainedConfig", dtype: torch.dtype, lora: Lora | None
) -> "PreTrainedModel":
    """Return a model in training mode whose weights have shapes and no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    if lora:
        attach_adapters(model, lora, seed=0)
    return model.train()


def autocast(is_wanted: bool) -> torch.autocast:
    """Return what trainer.precision=bf16-mixed runs a forward under, as Lightning sets it up."""
    return torch.autocast("cpu", torch.bfloat16, enabled=is_wanted, cache_enabled=False)


def count_activations(
    config: "PretrainedConfig", dtype: torch.dtype, lora: Lora | None, tokens: int, is_mixed: bool
) -> tuple[int, int]:
    """Return the bytes that a forward keeps for its backward pass: in a layer, around all layers.

    From a decoder with one layer and one with two layers, on fake tensors: autocast knows no meta
    device.
    """
    transformers.AttentionInterface.register("tif_shapes", _flash_attention)
    sizes = []
    for layers in (1, 2):
        short = copy.deepcopy(config)
        short.num_hidden_layers = layers
        if getattr(short, "layer_types", None):
            short.layer_types = short.layer_types[:layers]
        model: Any = make_meta_model(short, dtype, lora).base_model
        model.set_attn_implementation("tif_shapes")
        with FakeTensorMode(allow_non_fake_inputs=True):
            fakes = {}
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                fake = torch.empty_like(tensor, device="cpu")
                fakes[name] = fake.requires_grad_(tensor.requires_grad)
            ids = torch.zeros(1, tokens, dtype=torch.long)
            inputs = {"input_ids": ids, "position_ids": ids, "use_cache": False}
            with _saved_for_backward(fakes.values()) as saved, autocast(is_mixed):
                torch.func.functional_call(model, fakes, kwargs=inputs)
        sizes.append(sum(storage.nbytes() for storage in saved.values()))
    inside_layer = sizes[1] - sizes[0]
    return inside_layer, sizes[0] - inside_layer


@contextlib.contextmanager
def _saved_for_backward(
    weights: Iterable[torch.Tensor],
) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Collect the storages of what autograd keeps inside the block, weights excepted."""
    stored = {weight.untyped_storage()._cdata for weight in weights}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in stored:
            saved[storage._cdata] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield saved


def _flash_attention(module: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> tuple[Any, None]:
    """Return an output of the right shape, as transformers calls an attention implementation."""
    return _Flash.apply(q, k, v), None


class _Flash(torch.autograd.Function):
    """Keeps what flash attention keeps: queries, keys, values, output, a number for each query."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(value) for value in ctx.saved_tensors[:3])
