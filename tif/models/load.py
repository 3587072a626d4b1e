"""Load the policy (the model that is unlearned or finetuned) and its tokenizer.

Called by training, evaluation and the bench. `check_hugging_face_model` is also called by identifiers and by the
fluency classifier, for their own models: it stops a run before any weights load.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError, one_line
from tif.config.schema import Model
from tif.scoring.attention import use_sample_by_sample_attention
from tif.utils.torch_state import seeded

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

HUB_NAME = r"([\w-][\w.-]*/)?[\w-][\w.-]*"  # model or org/model
AUTO_CLASSES = {
    "causal LM": "AutoModelForCausalLM",
    "masked LM": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}


def resolve_model_path(path: str) -> Path | str:
    """Return what transformers' `from_pretrained` takes: an existing folder or a hub name.

    Raises:
        FileNotFoundError: If `path` is neither, for example the folder of a stage that was deleted.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(HUB_NAME, path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return path


def check_hugging_face_model(path: str, key: str, kind: str, **options: Any) -> "PreTrainedModel":
    """Raise ConfigError unless `path` is a Hugging Face model of this kind.

    Args:
        path: folder or hub name.
        key: the configuration key that names it, for the message.
        kind: one of `AUTO_CLASSES`.
        options: for `from_config`, such as `attn_implementation` or `trust_remote_code`.

    Returns:
        The model on the meta device: shapes without weights.

    Raises:
        ConfigError: Naming the key, what is wrong and what is wanted.
    """
    import transformers

    try:
        location = resolve_model_path(path)
    except FileNotFoundError:
        raise ConfigError(f"{key}: no folder {path}; want a Hugging Face folder or hub name of a {kind}") from None
    if isinstance(location, Path) and not (location / "config.json").is_file():
        raise ConfigError(f"{key}: {path} holds no config.json; want a Hugging Face model folder (a run's model/)")
    trusted = {"trust_remote_code": options.get("trust_remote_code", False)}
    try:
        config = transformers.AutoConfig.from_pretrained(location, **trusted)
        with torch.device("meta"):
            model = getattr(transformers, AUTO_CLASSES[kind]).from_config(config, **options)
    except _loading_errors() as error:
        raise ConfigError(f"{key}: {path} is no model that can be loaded as a {kind} ({one_line(error)})") from None
    if isinstance(location, Path) and not any(location.glob("*.safetensors")):
        raise ConfigError(f"{key}: {path} holds no weights (*.safetensors); was a download or a run cut short?")
    return model


def check_model(settings: Model) -> str:
    """Raise ConfigError unless section `model` describes a causal LM, with LoRA targets that it has.

    Returns:
        The model's family, as transformers calls it ("llama").

    Raises:
        ConfigError: Naming the key and the next step, before any weights load.
    """
    if settings.path is None:
        _check_new_llama(settings)
        return "llama"
    is_folder = Path(settings.path).expanduser().is_dir()
    if not is_folder and "/" not in settings.path:  # more often a mistyped stage than a hub name
        raise ConfigError(
            f"model.path: no folder {settings.path}; want a Hugging Face folder, a hub name (org/model) or a stage"
        )
    model = check_hugging_face_model(
        settings.path,
        "model.path",
        "causal LM",
        attn_implementation=settings.attention,
        trust_remote_code=settings.trust_remote_code,
    )
    if settings.lora.rank:
        from tif.models.lora import attach_adapters

        attach_adapters(model, settings.lora, seed=0)
    return str(model.config.model_type)


def _check_new_llama(settings: Model) -> None:
    """Raise ConfigError unless `model.init` describes a Llama."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    unknown = set(settings.init) - set(LlamaConfig().to_dict())
    if unknown:
        raise ConfigError(f"model.init: LlamaConfig has no {', '.join(sorted(unknown))}")
    try:
        config = LlamaConfig(**settings.init)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, attn_implementation=settings.attention)
    except _loading_errors() as error:
        raise ConfigError(f"model.init: no Llama can be made of it ({one_line(error)})") from None


def _loading_errors() -> tuple[type[Exception], ...]:
    """Return what transformers raises for a config or tokenizer that it cannot use."""
    from huggingface_hub.errors import StrictDataclassError

    kinds = (OSError, ValueError, TypeError, RuntimeError, LookupError, ImportError)
    return (*kinds, StrictDataclassError)


def count_layers(settings: Model) -> int:
    """Return the number of the model's decoder layers; the model passed `check_model`."""
    from transformers import AutoConfig, LlamaConfig

    if settings.path is None:
        return int(LlamaConfig(**settings.init).num_hidden_layers)
    config = AutoConfig.from_pretrained(resolve_model_path(settings.path), trust_remote_code=settings.trust_remote_code)
    return int(config.get_text_config().num_hidden_layers)


def load_tokenizer(settings: Model, texts: Iterable[str]) -> "PreTrainedTokenizerBase":
    """Return the model's tokenizer; for a new model, byte-level BPE trained on `texts`."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if settings.path is not None:
        return AutoTokenizer.from_pretrained(
            resolve_model_path(settings.path), trust_remote_code=settings.trust_remote_code
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.init.get("vocab_size", 4096),
        special_tokens=["<end>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<pad>")


def load_policy(
    settings: Model, tokenizer: "PreTrainedTokenizerBase", seed: int, empty: bool = False
) -> "PreTrainedModel":
    """Return the model to unlearn or to finetune, in training mode.

    Args:
        settings: section `model`.
        tokenizer: a new model gets its vocabulary and its special tokens.
        seed: new weights and adapters are drawn from it; the global random state does not change.
        empty: read and draw no weights; the model is on the meta device.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if settings.path is None:
        policy = _new_llama(settings, tokenizer, seed, empty)
    elif empty:
        trusted = {"trust_remote_code": settings.trust_remote_code}
        config = AutoConfig.from_pretrained(resolve_model_path(settings.path), **trusted)
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=settings.attention,
                **trusted,
            )
    else:
        policy = load_pretrained(settings)
    return prepare_for_training(policy, settings, seed)


def _new_llama(settings: Model, tokenizer: "PreTrainedTokenizerBase", seed: int, empty: bool) -> "PreTrainedModel":
    """Return a Llama of `model.init` with weights drawn from the seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    # The checkpoint says how it was made, and has the ids of the tokenizer trained for it.
    keys = settings.init | {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with seeded(seed), torch.device("meta") if empty else contextlib.nullcontext():
        return LlamaForCausalLM(LlamaConfig(**keys)).to(getattr(torch, settings.dtype))


def load_pretrained(settings: Model) -> "PreTrainedModel":
    """Return the model at `model.path`, from safetensors, quantised where `model.quantize` says so."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        resolve_model_path(str(settings.path)),
        dtype=getattr(torch, settings.dtype),
        attn_implementation=settings.attention,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=True,
        quantization_config=_quantization(settings),
    )


def _quantization(settings: Model) -> "BitsAndBytesConfig | None":
    """Return how bitsandbytes stores the weights; None = as they are."""
    from transformers import BitsAndBytesConfig

    if settings.quantize == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
        )
    return BitsAndBytesConfig(load_in_8bit=True) if settings.quantize == "int8" else None


def prepare_for_training(policy: "PreTrainedModel", settings: Model, seed: int) -> "PreTrainedModel":
    """Give the policy the attention, checkpointing and adapters of section `model`, in place.

    Args:
        policy: as loaded.
        settings: section `model`.
        seed: adapters are drawn from it.

    Returns:
        The policy, in training mode.
    """
    if settings.quantize == "nf4":
        _keep_four_bits(policy)
    use_sample_by_sample_attention(policy)
    if settings.gradient_checkpointing:
        # The reentrant kind gives LoRA no gradients.
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.lora.rank:
        from tif.models.lora import attach_adapters

        attach_adapters(policy, settings.lora, seed)
    return policy.train()


def _keep_four_bits(policy: "PreTrainedModel") -> None:
    """Switch off bitsandbytes' repacking for AVX512 CPUs.

    The first forward in evaluation mode would pack the weights anew, for good, and all later ones
    would multiply in bfloat16.
    """
    for layer in policy.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
