"""what=memory: what a training step needs on each GPU, from a model's configuration alone.

    python -m tif.bench what=memory model.dtype=bfloat16 model.gradient_checkpointing=true
    python -m tif.bench what=memory model.path=FOLDER

Weights, gradients, AdamW's state and activations are counted on the meta device: shapes without
memory. The first rows check the same counting against a small model that is really trained here.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers
from rich.table import Table

from tif.bench.byte_counting import PeakBytes, count_activations, count_bytes, make_meta_model
from tif.bench.settings import BenchSettings
from tif.bench.training_setup import make_random_model
from tif.config.schema import Lora, Model
from tif.data.encoding import Encoded, collate
from tif.scoring.lm_head import CHUNK_TOKENS
from tif.scoring.token_scores import score_tokens
from tif.utils.terminal import track

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TRAININGS = ("full", "lora", "nf4")
GPUS = (1, 4, 8)
DEFAULT_TOKENS = 4096  # scored at once
# nf4 with double quantisation, bytes a weight: 4 bits, 8 bits for every 64 weights and 32 bits
# for every 64 * 256 (arXiv 2305.14314).
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool = False

    def config(self) -> "PretrainedConfig":
        """Return the configuration of such a model."""
        return transformers.LlamaConfig(**dataclasses.asdict(self))


# Published shapes: Llama-3.2-1B and 3B, Llama-2-7B, 13B and 70B.
SHAPES = {
    "1B": Shape(2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True),
    "3B": Shape(3072, 8192, 28, 24, 8, 128256, tie_word_embeddings=True),
    "7B": Shape(4096, 11008, 32, 32, 32, 32000),
    "13B": Shape(5120, 13824, 40, 40, 40, 32000),
    "70B": Shape(8192, 28672, 80, 64, 8, 32000),
}
SMALL_SHAPE = Shape(256, 704, 4, 8, 4, 4096)  # of the model that is really trained


@dataclasses.dataclass
class Need:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, optimizer: of the shard where there are shards. AdamW has two numbers
            for each trained weight.
        activations: kept for the backward pass of the tokens that are scored at once, and one
            chunk of logits with its gradient.
        gathered: whole tensors of FSDP2: embeddings and head, two blocks at a time, and their
            gradients.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum: the peak, when the first block's backward pass begins."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.gathered


def measure(settings: BenchSettings) -> list[dict[str, Any]]:
    """Return rows of the check, then a row for each model, training and number of GPUs.

    The unit of *_gb is 10^9 bytes, that of *_mb 10^6.
    """
    rows: list[dict[str, Any]] = []
    for training in track(TRAININGS, "small models"):
        peak, computed = check_small_model(training)
        row = {"model": "check", "way": training, "ratio": computed / peak}
        rows.append(row | {"computed_mb": computed / 1e6, "measured_mb": peak / 1e6})
    tokens = settings.data.max_tokens_per_batch or DEFAULT_TOKENS
    for name, config in _list_configs(settings.model).items():
        for training in TRAININGS:
            for gpus in GPUS:
                need = estimate_need(config, training, gpus, tokens, settings.model)
                row = {"model": name, "way": training, "gpus": gpus, "tokens": tokens}
                for part, size in dataclasses.asdict(need).items():
                    row[f"{part}_gb"] = size / 1e9
                rows.append(row | {"total_gb": need.total / 1e9, "dtype": settings.model.dtype})
    return rows


def _list_configs(model: Model) -> dict[str, "PretrainedConfig"]:
    """Return the model of the settings, or the published shapes where they name none."""
    if model.path:
        return {model.path: transformers.AutoConfig.from_pretrained(model.path)}
    if model.init:
        return {"model.init": transformers.LlamaConfig(**model.init)}
    return {name: shape.config() for name, shape in SHAPES.items()}


def estimate_need(
    config: "PretrainedConfig",
    training: str,
    gpus: int,
    tokens: int,
    model: Model,
    answer_tokens: int | None = None,
) -> Need:
    """Return what a step of `tokens` tokens at once needs on each of `gpus` GPUs.

    Args:
        config: of the model.
        training: full, lora, or nf4 (with LoRA). Shards (FSDP2) on several GPUs; nf4, which
            cannot be cut, in copies (DDP).
        gpus: number of them.
        tokens: scored at once on each.
        model: dtype, gradient_checkpointing and lora.rank (16 where that is 0) are read.
        answer_tokens: how many of the tokens are answer tokens; None = all.
    """
    lora = None if training == "full" else Lora(model.lora.rank or 16, targets=model.lora.targets)
    dtype: torch.dtype = getattr(torch, model.dtype)
    policy = make_meta_model(config, dtype, lora)
    weights = count_bytes(policy.parameters())
    if training == "nf4":
        for name, layer in policy.named_modules():
            if isinstance(layer, torch.nn.Linear) and _has_four_bits(name):
                weights += layer.weight.numel() * (NF4_BYTES - layer.weight.itemsize)
    trained = count_bytes(weight for weight in policy.parameters() if weight.requires_grad)
    shards = 1 if training == "nf4" else gpus
    return Need(
        weights=weights / shards,
        gradients=trained / shards,
        optimizer=2 * trained / shards,
        activations=_estimate_activations(config, model, lora, tokens, answer_tokens or tokens),
        gathered=_estimate_gathered(policy, training == "full") if shards > 1 else 0.0,
    )


def _estimate_activations(
    config: "PretrainedConfig", model: Model, lora: Lora | None, tokens: int, answer_tokens: int
) -> float:
    dtype: torch.dtype = getattr(torch, model.dtype)
    layers = config.num_hidden_layers
    inside_layer, around_layers = count_activations(config, dtype, lora, tokens)
    inside_layers = layers * inside_layer
    if model.gradient_checkpointing:  # each layer keeps its input, one layer is computed again
        layer_input = tokens * config.hidden_size * dtype.itemsize
        inside_layers = layers * layer_input + inside_layer
    chunk = min(answer_tokens, CHUNK_TOKENS)
    logits_and_gradient = 2 * chunk * config.vocab_size * dtype.itemsize
    return around_layers + inside_layers + logits_and_gradient


def _estimate_gathered(policy: "PreTrainedModel", is_full: bool) -> float:
    """Return the bytes of FSDP2's whole tensors; their gradients too, where all weights train."""
    block = count_bytes(_first_block(policy).parameters())
    around = count_bytes(policy.parameters()) - policy.config.num_hidden_layers * block
    gathered = around + 2 * block
    return gathered + around + block if is_full else gathered


def _has_four_bits(name: str) -> bool:
    """Return whether bitsandbytes packs this linear layer: not the head, not the adapters."""
    return "lora_" not in name and not name.endswith("lm_head")


def _first_block(policy: "PreTrainedModel") -> torch.nn.Module:
    classes = policy._no_split_modules or ()
    return [module for module in policy.modules() if type(module).__name__ in classes][0]


def check_small_model(training: str, tokens: int = 768) -> tuple[float, float]:
    """Train a small model for two steps of two parts each.

    Returns:
        Bytes at the peak, and the bytes that `estimate_need` computes.
    """
    config, length = SMALL_SHAPE.config(), 64
    model = Model(
        init=config.to_dict(),
        lora=Lora(rank=0 if training == "full" else 16),
        quantize="nf4" if training == "nf4" else "none",
    )
    policy = make_random_model(model)
    answer = [False] + [True] * (length - 1)
    samples = []
    for number in range(tokens // length):
        samples.append(Encoded(str(number), [1 + number] * length, [False] * length, answer))
    batch = collate(samples, range(len(samples)), 0)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    with PeakBytes(policy) as counter:
        for _ in range(2):
            for _ in range(2):
                score_tokens(policy, batch).logprob.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    counter.sizes.clear()
    answer_tokens = tokens - len(samples)
    need = estimate_need(config, training, 1, tokens, model, answer_tokens)
    return float(counter.peak), need.total


def make_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the table for the terminal: a line for each model and training, a column for GPUs."""
    checks: list[str] = []
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["model"] == "check":
            sizes = f"{row['computed_mb']:.0f} MB computed, {row['measured_mb']:.0f} measured"
            checks.append(f"{row['way']} {sizes}")
            continue
        names = [field.name for field in dataclasses.fields(Need)]
        parts = " + ".join(f"{row[f'{name}_gb']:.1f}" for name in names)
        line = cells.setdefault((row["model"], row["way"]), [])
        line.append(f"{row['total_gb']:.1f} = {parts}")
    columns = [f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS]
    table = Table("model", "training", *columns, box=None, padding=(0, 2, 0, 0))
    for key, line in cells.items():
        table.add_row(*key, *line)
    table.title = "GB on each GPU = weights + gradients + optimizer + activations + gathered"
    last = rows[-1]
    table.caption = (
        f"weights and gradients in {last['dtype']} (LoRA's adapters in float32, linear layers of "
        "nf4 in 4 bits); optimizer: AdamW's two moments; activations of "
        f"{last['tokens']} tokens and a chunk of logits; gathered: FSDP2's whole tensors\n"
        f"check: {', '.join(checks)}"
    )
    return table
