"""The policy, its tokenizer, and the references it is compared with."""

import contextlib
import copy
import dataclasses
import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch.distributed.tensor import DTensor

from tif import attention, reference_cache
from tif.config import ConfigError
from tif.data.encode import Batch, Encoded, collate
from tif.schema import Model
from tif.scoring import TokenScores, token_scores
from tif.terminal import track

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
            raise ConfigError(f"model.init: no Llama can be made of it ({_reason(error)})") from None
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
        raise ConfigError(f"model.path: {cfg.path} is no model that can be loaded ({_reason(error)})") from None
    if cfg.lora.rank:
        from tif.adapters import attach

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


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
        from tif.adapters import attach

        attach(policy, cfg.lora, seed)
    return policy.train()


def _few_bits(cfg: Model, dtype: torch.dtype) -> "BitsAndBytesConfig | None":
    from transformers import BitsAndBytesConfig

    if cfg.quantize == "nf4":
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                  bnb_4bit_compute_dtype=dtype)  # fmt: skip
    return BitsAndBytesConfig(load_in_8bit=True) if cfg.quantize == "int8" else None


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random state set to `seed` inside, and as it was outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class Reference(Protocol):
    """The original model's scores of forget batches."""

    def scores(self, batch: Batch) -> TokenScores:
        """(B, T-1) each, no gradient, on the batch's device."""

    def on(self, device: torch.device) -> torch.nn.Module:
        """The original model, for losses that read more of it than scores."""


@dataclasses.dataclass
class CachedReference:
    """The policy's own scores of all forget samples, taken once before it changes: no second model in memory.

    Exact, since the reference is the initial policy. 12 bytes an answer token.
    """

    rows: list[TokenScores]  # one a forget sample, each (1, T_i - 1), on the CPU

    @classmethod
    def of(
        cls, policy: "PreTrainedModel", forget: Sequence[Encoded], pad_id: int, batching: str, batch_size: int = 16
    ) -> "CachedReference":
        """Score `forget` with the policy as it is; sorted by length, so that batches hold little padding."""
        rows: dict[int, TokenScores] = {}
        order = sorted(range(len(forget)), key=lambda i: len(forget[i].input_ids))
        starts = range(0, len(order), batch_size)
        with frozen(policy):
            for start in track(starts, "reference scores"):
                index = order[start : start + batch_size]
                batch = to_device(collate([forget[i] for i in index], index, pad_id), policy.device)
                scores = token_scores(policy, batch, batching)
                for row, i in enumerate(index):
                    length = len(forget[i].input_ids) - 1
                    cut = (t[row : row + 1, :length].cpu().clone() for t in dataclasses.astuple(scores))
                    rows[i] = TokenScores(*cut)
        return cls([rows[i] for i in range(len(forget))])

    def scores(self, batch: Batch) -> TokenScores:
        """Look up the batch's rows by `batch.index`."""
        width, device = batch.input_ids.shape[1] - 1, batch.input_ids.device
        rows = [self.rows[i] for i in batch.index.tolist()]

        def column(name: str) -> torch.Tensor:
            padded = [torch.nn.functional.pad(getattr(r, name), (0, width - r.logit.shape[1])) for r in rows]
            return torch.cat(padded).to(device)

        return TokenScores(column("logit"), column("logprob"), column("mean_logit"))

    def on(self, device: torch.device) -> torch.nn.Module:
        """There is none: tif.planning refuses losses that would ask."""
        raise TypeError("cached scores are no model")


class FrozenReference:
    """A second copy of the initial policy, on the batch's device. Exact for any input, at the price of its memory."""

    def __init__(self, policy: "PreTrainedModel", batching: str) -> None:
        self.model = copy.deepcopy(policy).eval().requires_grad_(False)
        self.batching = batching

    def on(self, device: torch.device) -> "PreTrainedModel":
        """The copy, on that device from now on."""
        self.model.to(device)
        return self.model

    def scores(self, batch: Batch) -> TokenScores:
        """One forward of the copy; any batch will do."""
        with torch.no_grad():
            return token_scores(self.on(batch.input_ids.device), batch, self.batching)


def make_reference(
    kind: str,
    policy: "PreTrainedModel",
    forget: Sequence[Encoded],
    pad_id: int,
    batching: str,
    folder: Path | None = None,
) -> Reference:
    """`kind`: model.reference; auto = cached, the cheapest one. `folder`: keeps cached scores for other runs."""
    if kind == "frozen":
        return FrozenReference(policy, batching)
    if kind == "adapter":
        from tif.adapters import AdapterReference

        return AdapterReference(policy, batching)
    if folder is None or isinstance(next(policy.parameters()), DTensor):  # no process has all of a shard's bits
        return CachedReference.of(policy, forget, pad_id, batching)

    def make() -> list[TokenScores]:
        return CachedReference.of(policy, forget, pad_id, batching).rows

    return CachedReference(list(reference_cache.rows(folder, policy, forget, batching, make)))


@contextlib.contextmanager
def frozen(policy: "PreTrainedModel") -> Iterator[None]:
    """Evaluation mode without gradients inside; the mode it had outside."""
    training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        policy.train(training)


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`."""
    moved = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in moved.items()}
    moved |= {k: to_device(v, device) for k, v in moved.items() if isinstance(v, Batch)}
    return Batch(**moved)
