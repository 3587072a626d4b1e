"""Cached reference scores in files beside the runs, so that the runs of a sweep compute them once.

Called by `references.make_reference`. A file's name is a hash of all that the scores depend on: the
encoded samples, the weights, the precision. No file is ever out of date; the folder may be deleted.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from tif.data.encoding import Encoded
from tif.scoring.token_scores import TokenScores
from tif.utils.files import locked, os_errors_naming
from tif.utils.terminal import console

SCORE_NAMES = [field.name for field in dataclasses.fields(TokenScores)]
Rows = dict[str, list[torch.Tensor]]  # by score name, (T_i - 1,) of each sample, on the CPU


def read_or_compute(file: Path, samples: Sequence[Encoded], compute: Callable[[], Rows]) -> Rows:
    """Return the scores in `file`, or compute and write them; a damaged file is made again.

    Of several processes that ask at once, one computes and the others wait.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(f"{file}.lock", str(file)):
        if file.exists():
            lengths = [len(sample.input_ids) - 1 for sample in samples]
            try:
                tensors = safetensors.torch.load_file(file)
                return {name: list(tensors[name].split(lengths)) for name in SCORE_NAMES}
            except (safetensors.SafetensorError, KeyError, RuntimeError):
                message = f"{file} is damaged: reference scores are made again"
                console.print(message, markup=False, soft_wrap=True)
        rows = compute()
        _write(file, rows)
    return rows


def _write(file: Path, rows: Rows) -> None:
    """Write all samples' scores end to end, in one step."""
    file.parent.mkdir(parents=True, exist_ok=True)  # it may have been deleted meanwhile
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    tensors = {name: torch.cat(values) for name, values in rows.items()}
    try:
        with os_errors_naming(file):
            safetensors.torch.save_file(tensors, partial)
            os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def hash_inputs(policy: torch.nn.Module, samples: Sequence[Encoded], batching: str) -> str:
    """Return a hexadecimal digest of all that the scores depend on.

    Which answer tokens are unwanted is not part of it: all of them are scored.
    """
    device = next(policy.parameters()).device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    digest = hashlib.sha256(f"1 {batching} {dtype}".encode())
    for sample in samples:
        answer = [u or g for u, g in zip(sample.uw, sample.gw, strict=True)]
        digest.update(repr((sample.input_ids, answer)).encode())
    for name, weight in policy.named_parameters():
        shape = tuple(weight.shape)
        digest.update(f"{name} {weight.dtype} {shape} {_checksum(weight)}".encode())
    return digest.hexdigest()[:32]


def _checksum(weight: torch.Tensor) -> int:
    """Return a checksum of the weight's bits and their places, computed on its device."""
    dtype = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    total = 0
    for part in weight.detach().flatten().view(dtype).split(2**22):
        factors = torch.arange(1, len(part) + 1, device=part.device) * 6364136223846793005 | 1
        total = (total * 31 + int((part.long() * factors).sum())) % 2**64
    return total
