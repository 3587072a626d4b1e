"""what=memory: what a training step needs on each GPU, from a model's configuration alone.

    tif bench what=memory model.dtype=bfloat16 model.gradient_checkpointing=true
    tif bench what=memory model.path=FOLDER

Weights, gradients, AdamW's state and activations are counted on tensors without memory.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers

from tif.bench.settings import BenchSettings
from tif.bench.tensor_bytes import count_activations, count_bytes, make_meta_model
from tif.config.schema import Lora, Model
from tif.models.load import read_config
from tif.scoring.lm_head import CHUNK_TOKENS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# way -> dtype of the weights (None = model.dtype) and trainer.precision
TRAININGS = {
    "full": ("float32", "bf16-mixed"),
    "bf16": ("bfloat16", "bf16-true"),
    "lora": (None, "bf16-mixed"),
    "nf4": (None, "bf16-mixed"),
}
GPUS = (1, 4, 8)
DEFAULT_TOKENS = 4096  # scored at once
# nf4 with double quantisation, bytes a weight: 4 bits, 8 bits for every 64 weights and 32 bits
# for every 64 * 256 (arXiv 2305.14314).
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
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
    if model.path:
        configs = {model.path: read_config(model)}
    elif model.init:
        configs = {"model.init": transformers.LlamaConfig(**model.init)}
    else:
        configs = {name: make_config(shape) for name, shape in SHAPES.items()}
    rows = []
    for name, config in configs.items():
        for training in TRAININGS:
            for gpus in GPUS:
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
    """Return what a step of `tokens` answer tokens at once needs on each of `gpus` GPUs.

    Args:
        config: of the model.
        training: of `TRAININGS`; nf4 with LoRA. Shards (FSDP2) on several GPUs; nf4, which cannot
            be cut, in copies (DDP).
        gpus: number of them.
        tokens: scored at once on each.
        model: dtype (of frozen weights), gradient_checkpointing and lora.rank (16 where that is 0)
            are read.
    """
    dtype, precision = TRAININGS[training]
    is_full = training in ("full", "bf16")
    lora = Lora() if is_full else Lora(model.lora.rank or 16, targets=model.lora.targets)
    quantize = "nf4" if training == "nf4" else "none"
    section = dataclasses.replace(
        model, dtype=dtype or model.dtype, lora=lora, quantize=quantize
    )
    return estimate_training(config, section, precision == "bf16-mixed", gpus, tokens)


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
    lora = model.lora if model.lora.rank else None
    policy = make_meta_model(config, getattr(torch, model.dtype), lora)
    weights = count_bytes(policy.parameters())
    bytes_of_weight = {"nf4": NF4_BYTES, "int8": 1.0}.get(model.quantize)
    if bytes_of_weight is not None:
        for name, layer in policy.named_modules():
            # bitsandbytes leaves the head and the adapters as they are.
            is_left = "lora_" in name or name.endswith("lm_head")
            if isinstance(layer, torch.nn.Linear) and not is_left:
                weights += layer.weight.numel() * (bytes_of_weight - layer.weight.itemsize)
    trained = count_bytes(weight for weight in policy.parameters() if weight.requires_grad)
    shards = 1 if model.quantize != "none" else gpus
    if shards > 1 and is_mixed:  # FSDP2 gathers bfloat16, so that autocast copies nothing
        model = dataclasses.replace(model, dtype="bfloat16")
        policy = policy.bfloat16()
    return Need(
        weights=weights / shards,
        gradients=trained / shards,
        optimizer=2 * trained / shards,
        activations=_estimate_activations(config, model, lora, tokens, is_mixed),
        gathered=_estimate_gathered(policy, lora is None) if shards > 1 else 0.0,
    )


def _estimate_activations(
    config: "PretrainedConfig", model: Model, lora: Lora | None, tokens: int, is_mixed: bool
) -> float:
    dtype: torch.dtype = getattr(torch, model.dtype)
    layers = config.num_hidden_layers
    inside_layer, around_layers = count_activations(config, dtype, lora, tokens, is_mixed)
    inside_layers = layers * inside_layer
    if model.gradient_checkpointing:  # each layer keeps its input, one layer is computed again
        inside_layers = layers * tokens * config.hidden_size * dtype.itemsize + inside_layer
    logits = min(tokens, CHUNK_TOKENS) * config.vocab_size * (2 if is_mixed else dtype.itemsize)
    return around_layers + inside_layers + 2 * logits


def _estimate_gathered(policy: "PreTrainedModel", is_full: bool) -> float:
    """Return the bytes of FSDP2's whole tensors; their gradients too, where all weights train."""
    classes = policy._no_split_modules or ()
    blocks = [module for module in policy.modules() if type(module).__name__ in classes]
    block = count_bytes(blocks[0].parameters())
    around = count_bytes(policy.parameters()) - len(blocks) * block
    return 2 * around + 3 * block if is_full else around + 2 * block
