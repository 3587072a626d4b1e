"""Count the bytes of tensors: weights, what a forward keeps for its backward pass, the peak.

Called by what=memory.
"""

import contextlib
import copy
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

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


def count_activations(
    config: "PretrainedConfig", dtype: torch.dtype, lora: Lora | None, tokens: int
) -> tuple[int, int]:
    """Return the bytes that a forward keeps for its backward pass: in a layer, around all layers.

    The difference of a decoder with two layers and one with one layer.
    """
    transformers.AttentionInterface.register("tif_shapes", _flash_attention)
    sizes = []
    for layers in (1, 2):
        short = copy.deepcopy(config)
        short.num_hidden_layers = layers
        if getattr(short, "layer_types", None):
            short.layer_types = short.layer_types[:layers]
        model = make_meta_model(short, dtype, lora)
        model.set_attn_implementation("tif_shapes")
        with _saved_for_backward(model) as bytes_by_storage:
            ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
            model.base_model(input_ids=ids, position_ids=ids, use_cache=False)
        sizes.append(sum(bytes_by_storage.values()))
    inside_layer = sizes[1] - sizes[0]
    return inside_layer, sizes[0] - inside_layer


@contextlib.contextmanager
def _saved_for_backward(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Collect the bytes of what autograd keeps inside the block, weights excepted, by storage."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # or the number of a freed storage would be given again

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield sizes


def _flash_attention(
    module: torch.nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
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


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors that lived at once inside the block, those of a model included.

    For a CPU, where PyTorch has no such counter. torch.distributed._tools.MemTracker, which counts
    there too, refuses weights without a gradient, so all models with LoRA.

    Attributes:
        peak: bytes.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.current = self.peak = 0
        self.sizes: dict[weakref.ref, int] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count its results."""
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._add, result)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = weakref.ref(storage, self._remove)
        if reference not in self.sizes:
            self.sizes[reference] = storage.nbytes()
            self.current += storage.nbytes()
            self.peak = max(self.peak, self.current)

    def _remove(self, reference: weakref.ref) -> None:
        self.current -= self.sizes.pop(reference, 0)
