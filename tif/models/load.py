"""Check and load the policy (the model that is unlearned or finetuned) and its tokenizer."""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError, brief, one_line
from tif.config.model import Model
from tif.models import pretrained
from tif.models.lora import CAST_TO_WEIGHT, WEIGHT_READ, attach_adapters, is_weight_read
from tif.scoring.attention import use_sample_by_sample_attention
from tif.utils.torch_state import find_noise, seeded, set_training_mode

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LLAMA = "llama"
COUNTS = ("_size", "_heads", "_layers", "_embeddings", "head_dim")  # keys of LlamaConfig


def check_retain_model(path: str, settings: Model) -> None:
    """Raise ConfigError unless `eval.retain_model`, a folder or hub name, is a causal LM."""
    source = pretrained.Source(path, "eval.retain_model", settings.trust_remote_code)
    pretrained.check_model(source, "causal LM", settings.attention)


def build_empty(settings: Model) -> "PreTrainedModel":
    """Return the model of section `model` on the meta device: shapes without weights.

    Raises:
        ConfigError: If it is no causal LM, one line with the key.
    """
    path = settings.path
    if path is None:
        return _check_new_model(settings)
    if "/" not in path and not Path(path).is_dir():  # rather a mistyped stage than a hub name
        wanted = "want a Hugging Face folder, a hub name (org/model) or a stage"
        raise ConfigError(f"model.path: no folder {path}; {wanted}")
    return pretrained.check_model(_source(settings), "causal LM", settings.attention)


def _check_new_model(settings: Model) -> "PreTrainedModel":
    """Return a new model on the meta device; ConfigError unless it can be made and fits here."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = settings.init.get("model_type", LLAMA)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        wanted = "want a causal LM that transformers knows, such as llama, qwen3, gemma2, mamba"
        raise ConfigError(f"model.init: model_type is {brief(kind)}; {wanted}")
    default = read_config(Model(init={"model_type": kind}))
    config_class = type(default).__name__
    unknown = sorted(set(_given(settings.init)) - set(default.to_dict()))
    if unknown:
        raise ConfigError(f"model.init: {config_class} has no {', '.join(unknown)}")
    for name, value in settings.init.items():
        if name.endswith(COUNTS) and isinstance(value, int) and value < 1:
            raise ConfigError(f"model.init: {name} is {value}; want at least 1")
    try:
        pretrained.check_sizes(settings.init)
        with torch.device("meta"):
            config, options = read_config(settings), _loading_options(settings)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **options)
        if kind == LLAMA and (
            config.num_attention_heads % config.num_key_value_heads or config.head_dim % 2
        ):
            raise ValueError("want num_attention_heads in groups of num_key_value_heads and an "
                "even head_dim")
    except Exception as error:
        problem = f"no {config_class.removesuffix('Config')} can be made of it ({one_line(error)})"
        raise ConfigError(f"model.init: {problem}") from None
    size = sum(weight.numel() * weight.itemsize for weight in model.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        sizes = f"{size / 1e9:,.0f} GB of weights, and this machine has {memory / 1e9:,.0f} GB"
        raise ConfigError(f"model.init: that is {sizes}; want smaller sizes")
    return model


def _given(init: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that are not null; null takes a file's key back."""
    return {name: value for name, value in init.items() if value is not None}


def read_config(settings: Model) -> "PretrainedConfig":
    """Return the transformers config of `model.path`, or a new model's of `model.init`."""
    from transformers import AutoConfig

    if settings.path is None:
        return AutoConfig.for_model(**{"model_type": LLAMA} | _given(settings.init))
    return pretrained.read_config(_source(settings), "causal LM")


def load_tokenizer(settings: Model, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer; for a new model, byte-level BPE trained on `texts`."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer
    from transformers import PreTrainedTokenizerFast

    if settings.path is not None:
        if settings.tokenizer:
            source = pretrained.Source(
                settings.tokenizer, "model.tokenizer", settings.trust_remote_code
            )
            return pretrained.load_tokenizer(source)
        return pretrained.load_tokenizer(_source(settings))
    size, special = settings.init.get("vocab_size", 4096), ["<end>", "<pad>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, size, 0, show_progress=False, special_tokens=special)
    trained = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<end>", pad_token="<pad>")


def load_policy(
    settings: Model, tokenizer: "PreTrainedTokenizerBase", seed: int, empty: bool = False,
    device: torch.device | None = None,
) -> "PreTrainedModel":  # fmt: skip
    """Return the model to unlearn or to finetune, in training mode.

    A new model gets the tokenizer's vocabulary and special tokens. Its weights, and adapters, are
    drawn from the seed; the global random state does not change. `empty`: no weights, on the meta
    device. `device`: where weights in few bits are put; others are on the CPU.
    """
    from transformers import AutoModelForCausalLM

    if settings.path is not None and not empty:
        return prepare_for_training(load_pretrained(settings, device), settings, seed)
    config = read_config(settings)
    if settings.path is None:
        config.vocab_size, config.bos_token_id = len(tokenizer), None
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    with seeded(seed), torch.device("meta") if empty else contextlib.nullcontext():
        policy = AutoModelForCausalLM.from_config(
            config, trust_remote_code=settings.trust_remote_code, **_loading_options(settings)
        )
    return prepare_for_training(policy, settings, seed)


def load_pretrained(settings: Model, device: torch.device | None = None) -> "PreTrainedModel":
    """Return the model at `model.path`, in few bits on `device` where `model.quantize` says so.

    Weights in few bits stay where they were loaded: a move leaves the scales of int8 behind
    (bitsandbytes 0.50.2), and transformers refuses it with bitsandbytes below 0.48.
    """
    from transformers import BitsAndBytesConfig

    options = _loading_options(settings)
    if settings.quantize != "none":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=settings.quantize == "int8", load_in_4bit=settings.quantize == "nf4",
            bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
            llm_int8_skip_modules=list_layers_in_full(settings),
        )  # fmt: skip
        options["device_map"] = {"": device or torch.device("cpu")}
    return pretrained.load_model(_source(settings), "causal LM", **options)


def list_layers_in_full(settings: Model) -> list[str] | None:
    """Return the layers that few bits would break, with the head; None = the head alone.

    The code around them reads their weights, as if these were numbers (`dt_proj` of Mamba).
    """
    from transformers.quantizers.base import get_keys_to_not_convert

    model = build_empty(settings)
    names = []
    for name, module in model.named_modules():
        is_read = any(is_weight_read(model, name, code) for code in (WEIGHT_READ, CAST_TO_WEIGHT))
        if isinstance(module, torch.nn.Linear) and is_read:
            names.append(name)
    return names + get_keys_to_not_convert(model) if names else None


def move_model(model: Any, device: torch.device | str) -> Any:
    """Move a model to a device, in place; weights in few bits stay where they were loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


def _source(settings: Model) -> pretrained.Source:
    return pretrained.Source(str(settings.path), "model.path", settings.trust_remote_code)


def _loading_options(settings: Model) -> dict[str, Any]:
    return {"dtype": getattr(torch, settings.dtype), "attn_implementation": settings.attention}


def prepare_for_training(
    policy: "PreTrainedModel", settings: Model, seed: int
) -> "PreTrainedModel":
    """Give the policy attention, checkpointing and adapters as section `model` says, in place."""
    for layer in policy.modules():
        # On some CPUs the first evaluation would pack nf4 weights anew, for good, and all later
        # products would be in bfloat16.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if hasattr(policy.config, "rescale_every"):
        # RWKV divides its own weights while it is evaluated, for float16; they would be exported.
        policy.config.rescale_every = 0
    if hasattr(policy.config, "max_inference_chunksize"):
        # xLSTM would evaluate longer texts in pieces, from a state of another shape and dtype.
        policy.config.max_inference_chunksize = sys.maxsize
    use_sample_by_sample_attention(policy)
    if settings.gradient_checkpointing:
        new_name = getattr(policy, "activation_checkpointing_enable", None)  # transformers 5.24
        enable = new_name or policy.gradient_checkpointing_enable
        enable({"use_reentrant": False})  # the reentrant kind gives LoRA no gradients
    if settings.lora.rank:
        attach_adapters(policy, settings.lora, seed)
    set_training_mode(policy)
    return policy


def describe_noise(policy: "PreTrainedModel") -> str | None:
    """Return a line that names the model's noise that training leaves out; None = it has none."""
    values = sorted({f"{name}={getattr(module, name)}" for module, name in find_noise(policy)})
    if not values:
        return None
    return f"training adds no noise: {', '.join(values)} of the model have no effect"
