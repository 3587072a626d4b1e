"""what=memory: what a training step needs on each GPU, from a model's configuration alone.

Weights, gradients, AdamW's state and activations are counted on tensors without memory.
"""

import copy
import dataclasses
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from tif.bench.settings import BenchSettings
from tif.config.schema import Lora, Model
from tif.models.load import read_config
from tif.models.lora import attach_adapters
from tif.scoring.lm_head import CHUNK_TOKENS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# way -> dtype of the weights (None = model.dtype), trainer.precision, whether adapters are
# trained, model.quantize
TRAININGS = {
    "full": ("float32", "bf16-mixed", False, "none"),
    "bf16": ("bfloat16", "bf16-true", False, "none"),
    "lora": (None, "bf16-mixed", True, "none"),
    "nf4": (None, "bf16-mixed", True, "nf4"),
}
GPUS = (1, 4, 8)
DEFAULT_TOKENS = 4096  # scored at once
# Bytes a weight. nf4 with double quantisation: 4 bits, 8 bits for every 64 weights and 32 bits for
# every 64 * 256 (arXiv 2305.14314).
QUANTIZED_BYTES = {"nf4": 1 / 2 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
SHAPE_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
# Published shapes: Llama-3.2-1B and 3B, Llama-2-7B, 13B and 70B.
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, 128256, True),
    "3B": (3072, 8192, 28, 24, 8, 128256, True),
    "7B": (4096, 11008, 32, 32, 32, 32000, False),
    "13B": (5120, 13824, 40, 40, 40, 32000, False),
    "70B": (8192, 28672, 80, 64, 8, 32000, False),
}
COLUMNS = {
    "model": "{model}",
    "way": "{way}",
    "GPUs": "{gpus}",
    "total": "{total_gb:.2f}",
    "weights": "{weights_gb:.2f}",
    "grad.": "{gradients_gb:.2f}",
    "AdamW": "{optimizer_gb:.2f}",
    "act.": "{activations_gb:.2f}",
    "gathered": "{gathered_gb:.2f}",
}
NOTE = (
    "GB (10^9 bytes) on each GPU: weights, gradients, AdamW's two moments, activations, and the "
    "whole tensors that FSDP2 gathers. full: all weights trained in float32 with trainer.precision="
    "bf16-mixed, whose bfloat16 copies of the weights are among the activations. bf16: all weights "
    "trained in bfloat16 (bf16-true, optimizer.name=adamw_bf16). "
    "lora, nf4: frozen weights in model.dtype, linear layers of nf4 in 4 bits, adapters in "
    "float32, bf16-mixed. Activations of the tokens that are scored at once "
    "(data.max_tokens_per_batch), and a chunk of logits with its gradient."
)


class Need(NamedTuple):
    """Bytes on one GPU; of the shard where there are shards.

    Their sum is the peak: the moment when the first block's backward pass begins.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float  # kept for the backward pass, and one chunk of logits with its gradient
    gathered: float  # FSDP2's embeddings and head, two blocks at a time, and their gradients


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return a row for each model, training and number of GPUs."""
    model = settings.model
    tokens = settings.data.max_tokens_per_batch or DEFAULT_TOKENS
    configs = {name: make_config(shape) for name, shape in SHAPES.items()}
    if model.path:
        configs = {model.path: read_config(model)}
    elif model.init:
        configs = {"model.init": transformers.LlamaConfig(**model.init)}
    rows = []
    for name, config in configs.items():
        for training, gpus in itertools.product(TRAININGS, GPUS):
            need = estimate_need(config, training, gpus, tokens, model)
            rows.append(make_row(name, training, gpus, need))
    return rows


def make_row(name: str, training: str, gpus: int, need: Need) -> dict[str, Any]:
    """Return the row of a model, a way of training and a number of GPUs."""
    row = {"model": name, "way": training, "gpus": gpus, "precision": TRAININGS[training][1]}
    sizes = {f"{part}_gb": size / 1e9 for part, size in need._asdict().items()}
    return row | sizes | {"total_gb": sum(need) / 1e9}


def make_config(shape: tuple[int, ...]) -> "PretrainedConfig":
    """Return the configuration of a Llama of a shape, the values of SHAPE_KEYS."""
    keys: dict[str, Any] = dict(zip(SHAPE_KEYS, shape, strict=True))
    return transformers.LlamaConfig(**keys)


def estimate_need(
    config: "PretrainedConfig", training: str, gpus: int, tokens: int, model: Model
) -> Need:
    """Return what a step needs with a way of training of `TRAININGS`.

    Of `model`, dtype (of frozen weights), gradient_checkpointing and lora (rank 16 where it is 0)
    are read. The other arguments are those of `estimate_training`.
    """
    dtype, precision, has_adapters, quantize = TRAININGS[training]
    rank = (model.lora.rank or 16) if has_adapters else 0
    lora = Lora(rank, targets=model.lora.targets)
    model = dataclasses.replace(model, dtype=dtype or model.dtype, lora=lora, quantize=quantize)
    return estimate_training(config, model, precision == "bf16-mixed", gpus, tokens)


def estimate_training(
    config: "PretrainedConfig", model: Model, is_mixed: bool, gpus: int, tokens: int
) -> Need:
    """Return what a step of `tokens` answer tokens at once needs on each of `gpus` GPUs.

    Args:
        config: of the model.
        model: section `model`; all weights are trained where lora.rank is 0.
        is_mixed: whether the forward runs in 16 bits by autocast.
        gpus: shards (FSDP2) on several; quantised weights, which cannot be cut, in copies (DDP).
        tokens: scored at once on each.
    """
    policy = make_meta_model(config, model.dtype, model.lora)
    weights = _count_bytes(policy.parameters())
    if model.quantize != "none":
        for name, layer in policy.named_modules():
            # bitsandbytes leaves the head and the adapters as they are.
            is_left = "lora_" in name or name.endswith("lm_head")
            if isinstance(layer, torch.nn.Linear) and not is_left:
                saved = layer.weight.itemsize - QUANTIZED_BYTES[model.quantize]
                weights -= layer.weight.numel() * saved
    trained = _count_bytes(weight for weight in policy.parameters() if weight.requires_grad)
    shards = 1 if model.quantize != "none" else gpus
    if shards > 1 and is_mixed:  # FSDP2 gathers bfloat16, so that autocast copies nothing
        model = dataclasses.replace(model, dtype="bfloat16")
        policy = policy.bfloat16()
    return Need(
        weights=weights / shards,
        gradients=trained / shards,
        optimizer=2 * trained / shards,
        activations=_estimate_activations(config, model, tokens, is_mixed),
        gathered=_estimate_gathered(policy, not model.lora.rank) if shards > 1 else 0.0,
    )


def make_meta_model(config: "PretrainedConfig", dtype: str, lora: Lora) -> "PreTrainedModel":
    """Return a model in training mode whose weights have shapes and no memory."""
    with torch.device("meta"):
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    if lora.rank:
        attach_adapters(model, lora, seed=0)
    return model.train()


def autocast(is_wanted: bool) -> torch.autocast:
    """Return what trainer.precision=bf16-mixed runs a forward under, as Lightning sets it up."""
    return torch.autocast("cpu", torch.bfloat16, enabled=is_wanted, cache_enabled=False)


def _count_bytes(tensors: Iterable[torch.Tensor]) -> float:
    return float(sum(tensor.numel() * tensor.itemsize for tensor in tensors))


def _estimate_activations(
    config: "PretrainedConfig", model: Model, tokens: int, is_mixed: bool
) -> float:
    itemsize = getattr(torch, model.dtype).itemsize
    inside_layer, around_layers = count_activations(config, model, tokens, is_mixed)
    inside_layers = config.num_hidden_layers * inside_layer
    if model.gradient_checkpointing:  # each layer keeps its input, one layer is computed again
        inputs = config.num_hidden_layers * tokens * config.hidden_size * itemsize
        inside_layers = inputs + inside_layer
    logits = min(tokens, CHUNK_TOKENS) * config.vocab_size * (2 if is_mixed else itemsize)
    return around_layers + inside_layers + 2 * logits


def _estimate_gathered(policy: "PreTrainedModel", is_full: bool) -> float:
    """Return the bytes of FSDP2's whole tensors; their gradients too, where all weights train."""
    classes = policy._no_split_modules or ()
    blocks = [module for module in policy.modules() if type(module).__name__ in classes]
    block = _count_bytes(blocks[0].parameters())
    around = _count_bytes(policy.parameters()) - len(blocks) * block
    return 2 * around + 3 * block if is_full else around + 2 * block


def count_activations(
    config: "PretrainedConfig", model: Model, tokens: int, is_mixed: bool
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
        decoder: Any = make_meta_model(short, model.dtype, model.lora).base_model
        decoder.set_attn_implementation("tif_shapes")
        sizes.append(_count_saved(decoder, tokens, is_mixed))
    inside_layer = sizes[1] - sizes[0]
    return inside_layer, sizes[0] - inside_layer


def _count_saved(model: torch.nn.Module, tokens: int, is_mixed: bool) -> int:
    """Return the bytes that autograd keeps of a forward over so many tokens, beside the weights."""
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        saved[value.untyped_storage()._cdata] = value.untyped_storage()
        return value

    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            fake = torch.empty_like(tensor, device="cpu")
            fakes[name] = fake.requires_grad_(tensor.requires_grad)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        inputs = {"input_ids": ids, "position_ids": ids, "use_cache": False}
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value)
        with hooks, autocast(is_mixed):
            torch.func.functional_call(model, fakes, kwargs=inputs)
    for fake in fakes.values():
        saved.pop(fake.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in saved.values())


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
