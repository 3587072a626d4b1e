"""The policy and its tokenizer."""

import contextlib
import dataclasses
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tif.config.errors import ConfigError, one_line
from tif.config.schema import Model
from tif.data.encoding import Batch
from tif.scoring import attention, linear
from tif.utils.torch_state import seeded

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase


HUB_NAME = r"[\w-][\w.-]*/[\w.-]+"  # org/model


def check(cfg: Model) -> str:
    """Stop before weights load where `model.path` is no model or `model.init` no Llama.

    Returns:
        The model's family, as transformers calls it ("llama").

    Raises:
        ConfigError: Naming the key and the next step.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

    errors = (OSError, ValueError, TypeError, RuntimeError, LookupError, ImportError, StrictDataclassError)
    if cfg.path is None:
        unknown = set(cfg.init) - set(LlamaConfig().to_dict())
        if unknown:
            raise ConfigError(f"model.init: LlamaConfig has no {', '.join(sorted(unknown))}")
        try:
            with torch.device("meta"):  # shapes without weights
                AutoModelForCausalLM.from_config(LlamaConfig(**cfg.init), attn_implementation=cfg.attention)
        except errors as error:
            raise ConfigError(f"model.init: no Llama can be made of it ({one_line(error)})") from None
        return "llama"
    folder = Path(cfg.path).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.path: {cfg.path} holds no config.json; want a Hugging Face model folder (a run's model/)"
        )
    if not folder.is_dir() and not re.fullmatch(HUB_NAME, cfg.path):
        raise ConfigError(
            f"model.path: no folder {cfg.path}; want a Hugging Face folder, a hub name (org/model) or a stage"
        )
    keys = {"trust_remote_code": cfg.trust_remote_code}
    try:
        found = AutoConfig.from_pretrained(folder if folder.is_dir() else cfg.path, **keys)
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(found, attn_implementation=cfg.attention, **keys)
    except errors as error:
        raise ConfigError(f"model.path: {cfg.path} is no model that can be loaded ({one_line(error)})") from None
    if cfg.lora.rank:
        from tif.models.lora import attach

        attach(made, cfg.lora, seed=0)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model.path: {cfg.path} holds no weights (*.safetensors); was a download or a run cut short?"
        )
    return str(found.model_type)


def layers(cfg: Model) -> int:
    """Number of the model's decoder layers; `check` has found that it can be made."""
    from transformers import AutoConfig, LlamaConfig

    if cfg.path is None:
        return int(LlamaConfig(**cfg.init).num_hidden_layers)
    found = AutoConfig.from_pretrained(Path(cfg.path).expanduser(), trust_remote_code=cfg.trust_remote_code)
    return int(found.get_text_config().num_hidden_layers)


def _located(cfg: Model) -> Path:
    """`model.path` as from_pretrained takes it.

    Raises:
        FileNotFoundError: If it was a folder and is gone, as a stage that somebody deleted.
    """
    path = Path(str(cfg.path)).expanduser()
    if not path.is_dir() and not re.fullmatch(HUB_NAME, str(cfg.path)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path


def load_tokenizer(cfg: Model, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
    """The model's tokenizer; for a model from scratch, byte-level BPE trained on `texts`."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if cfg.path is not None:
        return AutoTokenizer.from_pretrained(_located(cfg), trust_remote_code=cfg.trust_remote_code)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<end>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=cfg.init.get("vocab_size", 4096),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<pad>")


def load_policy(cfg: Model, tokenizer: "PreTrainedTokenizerBase", seed: int, empty: bool = False) -> "PreTrainedModel":
    """The model to unlearn (or to finetune), in training mode.

    Weights from scratch are drawn from `seed`; the global random state is left as it was. `empty`: no weights are read
    or made, the model is on the meta device.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    dtype = getattr(torch, cfg.dtype)
    if cfg.path is None:
        # The checkpoint says how it was made; ids of the tokenizer that was trained for it.
        keys = {**cfg.init, "vocab_size": len(tokenizer), "bos_token_id": None}
        config = LlamaConfig(**keys, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        with seeded(seed), torch.device("meta") if empty else contextlib.nullcontext():
            policy: PreTrainedModel = LlamaForCausalLM(config).to(dtype)
    elif empty:
        found = AutoConfig.from_pretrained(_located(cfg), trust_remote_code=cfg.trust_remote_code)
        keys = {"attn_implementation": cfg.attention, "trust_remote_code": cfg.trust_remote_code}
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(found, dtype=dtype, **keys)
    else:
        policy = pretrained(cfg)
    return prepared(policy, cfg, seed)


def pretrained(cfg: Model) -> "PreTrainedModel":
    """The weights that `model.path` names, from safetensors, in as many bits as asked for."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, cfg.dtype)
    return AutoModelForCausalLM.from_pretrained(
        _located(cfg),
        dtype=dtype,
        attn_implementation=cfg.attention,
        trust_remote_code=cfg.trust_remote_code,
        use_safetensors=True,
        quantization_config=_few_bits(cfg, dtype),
    )


def prepared(policy: "PreTrainedModel", cfg: Model, seed: int) -> "PreTrainedModel":
    """The model as a run trains it: attention, kernels, checkpointing, adapters drawn from `seed`; in training mode."""
    for layer in policy.modules() if cfg.quantize == "nf4" else ():
        # On some CPUs the first evaluation would pack the weights anew for good and multiply in bfloat16 from then on.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    attention.use(policy)
    if cfg.liger:
        from transformers.integrations.liger import apply_liger_kernel

        # Not its losses: ours need float32 scores of answer tokens, and take them in chunks.
        apply_liger_kernel(policy, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    if cfg.gradient_checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})  # the other kind loses LoRA's gradients
    if cfg.lora.rank:
        from tif.models.lora import attach

        attach(policy, cfg.lora, seed)
    linear.use(policy)
    return policy.train()


def _few_bits(cfg: Model, dtype: torch.dtype) -> "BitsAndBytesConfig | None":
    from transformers import BitsAndBytesConfig

    if cfg.quantize == "nf4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=dtype)  # fmt: skip
    return BitsAndBytesConfig(load_in_8bit=True) if cfg.quantize == "int8" else None


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`."""
    moved = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in moved.items()}
    moved |= {k: to_device(v, device) for k, v in moved.items() if isinstance(v, Batch)}
    return Batch(**moved)
