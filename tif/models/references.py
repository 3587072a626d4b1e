"""The reference: the original model that a loss compares the policy with, or only its scores.

It is made before the first step. `scores(batch)` serves losses of token scores, `use_model()` those
that read whole distributions. Scores are kept in files beside the runs, so that the runs of a sweep
compute them once.
"""

import contextlib
import copy
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from tif.data.encoding import Batch, Encoded, collate
from tif.models.lora import adapters_disabled
from tif.scoring.token_scores import ModelContext, PerToken, TokenScores, score_tokens
from tif.utils.files import locked, os_errors_naming, use_default_mode
from tif.utils.terminal import console, track
from tif.utils.torch_state import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = dict[str, list[torch.Tensor]]  # by score name, (T_i - 1,) of each sample, on the CPU
SCORE_NAMES = [field.name for field in dataclasses.fields(TokenScores)]
BATCH_SIZE = 16  # samples that are scored at once
# Keys of a model's config that change no score: where it came from, what it returns. The weights
# tell their dtype themselves.
CONFIG_WITHOUT_EFFECT = (
    "architectures", "dtype", "id2label", "label2id", "output_attentions", "output_hidden_states",
    "problem_type", "return_dict", "transformers_version", "use_cache",
)  # fmt: skip


class ModelReference:
    """A model to compare with: a frozen copy of the policy, or the policy without its adapters."""

    def __init__(self, model: Any, batching: str) -> None:
        self.model, self.batching = model, batching

    def scores(self, batch: Batch) -> TokenScores:
        """Return the model's scores of any batch, (B, T-1) each, without a gradient."""
        with self.use_model() as model:
            return score_tokens(model, batch, self.batching)

    def use_model_for(self, per_token: PerToken) -> ModelContext:
        """Return what opens the model that a term reads distributions of."""
        return self.use_model

    @contextlib.contextmanager
    def use_model(self) -> Iterator[torch.nn.Module]:
        """Yield the model for one forward: no adapters, no dropout, no gradients in the block."""
        with evaluation_mode(self.model), adapters_disabled(self.model):
            yield self.model


@dataclasses.dataclass
class CachedReference:
    """Scores of all forget samples, taken from the policy before its first step.

    Exact, since the reference is the initial policy; 12 bytes a token and no second model.
    """

    rows: Rows

    def scores(self, batch: Batch) -> TokenScores:
        """Look up the scores of the batch's samples by `batch.index`, (B, T-1) each."""
        width, device = batch.input_ids.shape[1] - 1, batch.input_ids.device
        columns = {}
        for name, rows in self.rows.items():
            column = pad_sequence([rows[i] for i in batch.index.tolist()], batch_first=True)
            columns[name] = pad(column, (0, width - column.shape[1])).to(device)
        return TokenScores(**columns)


Reference = ModelReference | CachedReference


def copy_policy(policy: "PreTrainedModel") -> "PreTrainedModel":
    """Return a frozen copy of the policy, on its device, to compare with."""
    return copy.deepcopy(policy).eval().requires_grad_(False)


def make_reference(
    kind: str, policy: "PreTrainedModel", samples: Sequence[Encoded], pad_id: int, batching: str,
    cache_folder: Path | None = None,
) -> Reference:  # fmt: skip
    """Return a reference to the policy as it is now, of a kind of model.reference ("auto": cached).

    Args:
        samples: the forget samples, in the order of `Batch.index`.
        cache_folder: keeps cached scores for other runs.
    """
    if kind == "adapter":
        return ModelReference(policy, batching)
    if kind == "frozen":
        return ModelReference(copy_policy(policy), batching)

    def compute() -> Rows:
        return score_samples(policy, samples, pad_id, batching)

    is_sharded = isinstance(next(policy.parameters()), DTensor)
    if cache_folder is None or is_sharded:  # no process has all bits of a shard to hash
        return CachedReference(compute())
    file = cache_folder / f"{hash_inputs(policy, samples, batching)}.safetensors"
    return CachedReference(read_or_compute(file, samples, compute))


def score_samples(
    policy: "PreTrainedModel", samples: Sequence[Encoded], pad_id: int, batching: str
) -> Rows:
    """Return the policy's scores of the samples."""
    lengths = [len(sample.input_ids) - 1 for sample in samples]
    # Sorted by length, so that batches hold little padding.
    order = sorted(range(len(samples)), key=lengths.__getitem__)
    rows: Rows = {name: [torch.empty(0)] * len(samples) for name in SCORE_NAMES}
    with evaluation_mode(policy):
        for start in track(range(0, len(order), BATCH_SIZE), "reference scores"):
            indices = order[start : start + BATCH_SIZE]
            batch = collate([samples[i] for i in indices], indices, pad_id).to(policy.device)
            scores = score_tokens(policy, batch, batching)
            for name in SCORE_NAMES:
                for row, i in zip(getattr(scores, name).cpu(), indices, strict=True):
                    rows[name][i] = row[: lengths[i]].clone()
    return rows


def read_or_compute(file: Path, samples: Sequence[Encoded], compute: Callable[[], Rows]) -> Rows:
    """Return the scores in `file`, or compute and write them; a damaged file is made again.

    Of several processes that ask at once, one computes and the others wait.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(f"{file}.lock", str(file)):
        if file.is_file():
            lengths = [len(sample.input_ids) - 1 for sample in samples]
            try:
                tensors = safetensors.torch.load_file(file)
                return {name: list(tensors[name].split(lengths)) for name in SCORE_NAMES}
            except (safetensors.SafetensorError, KeyError, OSError, RuntimeError):
                message = f"{file} is damaged: reference scores are made again"
                console.print(message, soft_wrap=True)
        rows = compute()
        file.parent.mkdir(parents=True, exist_ok=True)  # it may have been deleted meanwhile
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        try:
            with os_errors_naming(file):
                tensors = {name: torch.cat(values) for name, values in rows.items()}
                safetensors.torch.save_file(tensors, partial)
                use_default_mode(partial)
                os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    return rows


def hash_inputs(policy: "PreTrainedModel", samples: Sequence[Encoded], batching: str) -> str:
    """Return a digest of all that the scores depend on, and of nothing else.

    These are the token ids (so the rendered prompts too), which of them are answers, the weights
    with the scales of few bits, the buffers, the configs of model and adapters, and the precision.
    """
    device = next(policy.parameters()).device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    configs = [_describe_config(policy.config.to_dict())]
    configs += [config.to_dict() for config in getattr(policy, "peft_config", {}).values()]
    attention = getattr(policy.config, "_attn_implementation", None)
    # Sets have another order in each process.
    text = json.dumps(configs, sort_keys=True, default=lambda v: sorted(map(str, v)))
    digest = hashlib.sha256(f"3 {batching} {device} {dtype} {attention} {text}".encode())
    for sample in samples:
        answer = [u or g for u, g in zip(sample.uw, sample.gw, strict=True)]
        digest.update(repr((sample.input_ids, answer)).encode())
    # A state dict holds the scales of nf4 and int8, but not the frequencies of rotary embeddings.
    for name, tensor in (policy.state_dict() | dict(policy.named_buffers())).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _describe_config(value: Any) -> Any:
    """Return a model's config, as a dict, without the keys that change no score."""
    if not isinstance(value, dict):
        return value
    described = {}
    for name, part in value.items():
        if not str(name).startswith("_") and name not in CONFIG_WITHOUT_EFFECT:
            described[str(name)] = _describe_config(part)
    return described
