"""Section `model`: the policy and the reference that it is compared with."""

import dataclasses
from typing import Any

from tif.config.keys import key

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass
class Lora:
    """Low-rank adapters (arXiv 2106.09685) through peft: the model's own weights do not change."""

    rank: int = key(0, "rank of the adapters; 0 = train all weights", at_least=0,
        at_most=8192)
    alpha: float = key(16.0, "the adapters' output is scaled by alpha / rank", above=0)
    dropout: float = key(0.0, "dropout before the adapters, while training", at_least=0,
        at_most=0.9)
    targets: list[str] = key([], "names of the layers that get one (q_proj, v_proj); [] = "
        "peft's all-linear: all linear ones but the head, and fused experts")
    merge: bool = key(True, "export model and adapters as one; false: the adapters alone, in "
        "peft's format")


@dataclasses.dataclass
class Model:
    """The policy and its reference."""

    path: str | None = key(None, "Hugging Face folder or hub name, or a stage's name; null = "
        "model.base, or a new model from model.init")
    base: str | None = key(None, "the pretrained model: where stages start, as ${model.base}; "
        "model=NAME, a file of configs/model, sets it")
    tokenizer: str | None = key(None, "folder or hub name of the tokenizer; null = the model's own")
    init: dict[str, Any] = key({}, "LlamaConfig's keys for a model made from scratch, or those of "
        "another model_type of transformers, as qwen3, that is given with them; null takes a key "
        "back; its tokenizer is trained on the data, up to vocab_size")
    dtype: str = key("float32", "dtype of the weights", choices=DTYPES)
    attention: str | None = key(None, "attn_implementation handed to transformers; null = its own "
        "choice")
    reference: str = key("auto", "the original model that losses compare with: cached (its scores "
        "taken once, no second model), adapter (LoRA: the policy with its adapters off), frozen (a "
        "copy); auto = cached where the loss reads no more than scores of forget samples, else "
        "adapter or frozen", choices=("auto", "cached", "adapter", "frozen"))
    lora: Lora = dataclasses.field(default_factory=Lora)
    quantize: str = key("none", "weights stored in fewer bits by bitsandbytes, under LoRA: nf4 (4 "
        "bits, arXiv 2305.14314) or int8", choices=("none", "nf4", "int8"))
    gradient_checkpointing: bool = key(False, "recompute activations in the backward pass: less "
        "memory, more time")
    trust_remote_code: bool = key(False, "run code that comes with a hub model; leave off unless "
        "you have read it")

    def find_problems(self, strategy: str, precision: str, negated: bool) -> list[str]:
        """Return the problems between keys, one line each.

        Args:
            strategy, precision: keys of section `trainer`.
            negated: whether loss.task_vector turns the weights around.
        """
        problems = self._precision_problems(precision)
        if self.quantize != "none" and not self.lora.rank:
            problems.append(f"model.quantize: {self.quantize} weights cannot be trained; want "
                "model.lora.rank > 0")
        if self.quantize != "none" and strategy.startswith(("fsdp", "model_parallel")):
            problems.append(f"model.quantize: {self.quantize} weights cannot be cut into the "
                f"shards of trainer.strategy={strategy}; want ddp or auto, or model.quantize=none")
        if self.lora.rank and not self.path:
            problems.append("model.lora.rank: adapters on weights that nobody has trained "
                "(model.path is null); want 0")
        if self.lora.rank and negated:
            problems.append("model.lora.rank: loss.task_vector negates whole weights, not "
                "adapters; want 0")
        if self.reference == "adapter" and not self.lora.rank:
            problems.append("model.reference: adapter is the policy with its LoRA adapters off; "
                "want model.lora.rank > 0")
        if self.reference == "frozen" and self.lora.rank:
            problems.append("model.reference: frozen would copy weights that LoRA leaves as they "
                "are; want adapter or auto")
        return problems

    def _precision_problems(self, precision: str) -> list[str]:
        """Return the weights that trainer.precision cannot train, one line each."""
        problems = []
        if self.quantize != "none" and precision == "bf16-true":
            problems.append(f"trainer.precision: bf16-true would convert the {self.quantize} "
                "weights of model.quantize, which bitsandbytes refuses; want bf16-mixed or 32-true")
        if self.dtype == "float16" and precision != "bf16-true" and not self.lora.rank:
            problems.append("model.dtype: float16 weights cannot be trained, AdamW's steps in them "
                "are 0 or infinite; want float32 or bfloat16, or model.lora.rank > 0")
        if (self.dtype, precision) in (("float16", "bf16-mixed"), ("bfloat16", "16-mixed")):
            problems.append(f"trainer.precision: {precision} does not go with the other 16 bits of "
                f"model.dtype={self.dtype}; want model.dtype=float32")
        return problems
