"""`python -m tif.bench what=memory`: what a training step needs on each GPU, from a model's configuration alone.

    python -m tif.bench what=memory model.dtype=bfloat16 model.gradient_checkpointing=true
    python -m tif.bench what=memory model.path=FOLDER

Weights, gradients, AdamW's state and activations are counted on the meta device: shapes without memory. The first rows
check the same counting against a small model that is really trained here.
"""

import contextlib
import copy
import dataclasses
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tif.bench.step import random_model
from tif.config.model import Lora, Model
from tif.data.encoding import Encoded, collate
from tif.models import lora as adapters
from tif.scoring.lm_head import CHUNK_TOKENS
from tif.scoring.token_scores import score_tokens
from tif.utils.terminal import quiet_libraries, track

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PretrainedConfig, PreTrainedModel

WAYS = ("full", "lora", "nf4")
GPUS = (1, 4, 8)
# Published shapes: Llama-3.2-1B and 3B, Llama-2-7B, 13B and 70B.
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8, 128256, True),
    "3B": (3072, 8192, 28, 24, 8, 128256, True),
    "7B": (4096, 11008, 32, 32, 32, 32000, False),
    "13B": (5120, 13824, 40, 40, 40, 32000, False),
    "70B": (8192, 28672, 80, 64, 8, 32000, False),
}
SMALL = (256, 704, 4, 8, 4, 4096, False)  # of the check
# nf4 with double quantisation, bytes a weight: 4 bits, 8 for every 64 weights, 32 for every 64 * 256 (arXiv 2305.14314)
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)


@dataclasses.dataclass
class Need:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, optimizer: of the shard where there are shards; AdamW has two numbers a trained weight.
        activations: kept for the backward pass of the tokens that are scored at once, and one chunk of logits with its
            gradient.
        gathered: FSDP2's whole tensors: embeddings and head, two blocks at a time, and their gradients.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """Their sum: the peak is where the first block's backward pass begins while gradients of earlier parts stay."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.gathered


def llama(hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, tied: bool) -> "PretrainedConfig":
    """A Llama of this shape."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, vocab_size=vocab, tie_word_embeddings=tied,
    )  # fmt: skip


def need(
    config: "PretrainedConfig", way: str, gpus: int, tokens: int, model: Model, answers: int | None = None
) -> Need:
    """What a step of `tokens` tokens at once needs on each of `gpus` GPUs.

    Args:
        config: of the model.
        way: full, lora, or nf4 (with LoRA). Shards (FSDP2) on several GPUs; nf4, which cannot be cut, in copies (DDP).
        gpus: number of them.
        tokens: scored at once on each.
        model: dtype, gradient_checkpointing and lora.rank (16 where that is 0) are read.
        answers: how many of the tokens are answer tokens; None = all.
    """
    lora = None if way == "full" else Lora(rank=model.lora.rank or 16, targets=model.lora.targets)
    dtype = getattr(torch, model.dtype)
    made = _meta(config, dtype, lora)
    layers = config.num_hidden_layers
    count: float = sum(w.numel() * w.itemsize for w in made.parameters())
    if way == "nf4":
        linear = [m.weight for name, m in made.named_modules() if isinstance(m, torch.nn.Linear) and _cut(name)]
        count += sum(w.numel() * (NF4 - w.itemsize) for w in linear)
    trained = sum(w.numel() * w.itemsize for w in made.parameters() if w.requires_grad)
    parts = 1 if way == "nf4" else gpus
    kept = _kept(config, dtype, lora, tokens)
    inside = (kept[1] - kept[0], kept[0] - (kept[1] - kept[0]))  # of a layer; around the layers
    entry = tokens * config.hidden_size * dtype.itemsize
    activations = inside[1] + (layers * entry + inside[0] if model.gradient_checkpointing else layers * inside[0])
    gathered = 0.0
    if parts > 1:
        blocks = [m for m in made.modules() if type(m).__name__ in (made._no_split_modules or ())]
        block, total = (sum(w.numel() * w.itemsize for w in m.parameters()) for m in (blocks[0], made))
        around = total - layers * block
        gathered = around + 2 * block + (around + block if way == "full" else 0)
    activations += _head(config, dtype, answers or tokens)
    return Need(count / parts, trained / parts, 2 * trained / parts, activations, gathered)


def _head(config: "PretrainedConfig", dtype: torch.dtype, answers: int) -> float:
    """A chunk's logits and their gradient."""
    return 2.0 * min(answers, CHUNK_TOKENS) * config.vocab_size * dtype.itemsize


def _cut(name: str) -> bool:
    """Whether bitsandbytes keeps this linear layer in four bits: not the head, not the adapters."""
    return "lora_" not in name and not name.endswith("lm_head")


def _meta(config: "PretrainedConfig", dtype: torch.dtype, lora: Lora | None) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if lora:
        adapters.attach_adapters(made, lora, seed=0)
    return made.train()


def _kept(config: "PretrainedConfig", dtype: torch.dtype, lora: Lora | None, tokens: int) -> list[int]:
    """Bytes that a forward of the decoder keeps for its backward pass, with one layer and with two."""
    from transformers import AttentionInterface

    AttentionInterface.register("tif_shapes", lambda module, q, k, v, mask, **_: (_Flash.apply(q, k, v), None))
    found = []
    for layers in (1, 2):
        short = copy.deepcopy(config)
        short.num_hidden_layers = layers
        if getattr(short, "layer_types", None):
            short.layer_types = short.layer_types[:layers]
        made = _meta(short, dtype, lora)
        made.set_attn_implementation("tif_shapes")
        with _saved(made) as sizes:
            ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
            made.base_model(input_ids=ids, position_ids=ids, use_cache=False)
        found.append(sum(sizes.values()))
    return found


@contextlib.contextmanager
def _saved(made: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Bytes by storage of what autograd keeps inside, weights excepted."""
    own = {w.untyped_storage()._cdata for w in made.parameters()}
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # or a freed storage's number would be given again

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield sizes


class _Flash(torch.autograd.Function):
    """What flash attention keeps: queries, keys, values, the output and a number for each query."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3], dtype=q.dtype, device=q.device)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(value) for value in ctx.saved_tensors[:3])


class Peak(TorchDispatchMode):
    """The most bytes of tensors that lived at once inside; on the CPU, where PyTorch itself does not count.

    Attributes:
        most: bytes, the model's among them.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self.held: dict[weakref.ref, int] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._meet(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and meet what it made."""
        made = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._meet, made)
        return made

    def _meet(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = weakref.ref(storage, self._gone)
        if reference not in self.held:
            self.held[reference] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)

    def _gone(self, reference: weakref.ref) -> None:
        self.now -= self.held.pop(reference, 0)


def measured(way: str, tokens: int = 768) -> tuple[float, float]:
    """A small model, trained for two steps of two parts: (bytes at the peak, bytes that `need` says)."""
    config = llama(*SMALL)
    cfg = Model(lora=Lora(rank=0 if way == "full" else 16), quantize="nf4" if way == "nf4" else "none")
    policy = random_model(dataclasses.replace(cfg, init=config.to_dict()))
    length = 64
    texts = [
        Encoded(str(i), [1 + i] * length, [False] * length, [False] + [True] * (length - 1))
        for i in range(tokens // length)
    ]
    batch = collate(texts, range(len(texts)), 0)
    optimizer = torch.optim.AdamW([w for w in policy.parameters() if w.requires_grad], fused=True)
    with Peak(policy) as peak:
        for _ in range(2):
            for _ in range(2):
                score_tokens(policy, batch).logprob.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    peak.held.clear()
    return float(peak.most), need(config, way, 1, tokens, cfg, tokens - len(texts)).total


def rows(cfg: Any) -> list[dict[str, Any]]:
    """The check, then each model x way x number of GPUs; GB (10^9 bytes)."""
    quiet_libraries()
    found: list[dict[str, Any]] = []
    for way in track(WAYS, "small models"):
        peak, said = measured(way)
        found.append(
            {"model": "check", "way": way, "computed_mb": said / 1e6, "measured_mb": peak / 1e6, "ratio": said / peak}
        )
    tokens = cfg.data.max_tokens_per_batch or 4096
    if cfg.model.path or cfg.model.init:
        from transformers import AutoConfig, LlamaConfig

        configs = {cfg.model.path or "model.init": AutoConfig.from_pretrained(cfg.model.path) if cfg.model.path else
                   LlamaConfig(**cfg.model.init)}  # fmt: skip
    else:
        configs = {name: llama(*shape) for name, shape in SHAPES.items()}
    for name, config in configs.items():
        for way in WAYS:
            for gpus in GPUS:
                own = need(config, way, gpus, tokens, cfg.model)
                sizes = {f"{k}_gb": v / 1e9 for k, v in dataclasses.asdict(own).items()}
                found.append({"model": name, "way": way, "gpus": gpus, **sizes, "total_gb": own.total / 1e9})
    return found


def table(rows: list[dict[str, Any]]) -> "Table":
    """For the terminal: a line a model and way, a column a number of GPUs."""
    from rich.table import Table

    checks = [row for row in rows if row["model"] == "check"]
    told = ", ".join(f"{r['way']} {r['computed_mb']:.0f} MB computed, {r['measured_mb']:.0f} measured" for r in checks)
    title = "GB on each GPU = weights + gradients + optimizer + activations + gathered"
    columns = [f"{n} GPU" + "s" * (n > 1) for n in GPUS]
    made = Table("model", "training", *columns, box=None, padding=(0, 2, 0, 0), title=title, caption=f"check: {told}")
    for (name, way), own in _by(rows).items():
        cells = []
        for r in own:
            parts = (r[f"{k}_gb"] for k in ("weights", "gradients", "optimizer", "activations", "gathered"))
            cells.append(f"{r['total_gb']:.1f} = " + " + ".join(f"{value:.1f}" for value in parts))
        made.add_row(name, way, *cells)
    return made


def _by(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["model"] != "check":
            found.setdefault((row["model"], row["way"]), []).append(row)
    return found
