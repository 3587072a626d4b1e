"""Cached reference scores in files beside the runs: forty tasks of a sweep compute them once.

A file is named by all that the scores depend on: the encoded samples, the weights, and the precision they are computed
in. Nothing in it can be out of date; delete the folder whenever you like.
"""

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

NAMES = ("logit", "logprob", "mean_logit")


def rows(
    folder: Path,
    policy: torch.nn.Module,
    forget: Sequence[Encoded],
    batching: str,
    make: Callable[[], Sequence[TokenScores]],
) -> Sequence[TokenScores]:
    """What `make` gives, or what an earlier run or another process has written of the same.

    Safe when several processes ask at once: one computes, the others wait and read. A file that is damaged is made
    again.

    Returns:
        (1, T_i - 1) scores of each forget sample, on the CPU.
    """
    file = folder / f"{name(policy, forget, batching)}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(f"{file}.lock", str(file)):
        if file.exists():
            try:
                return _read(file, forget)
            except (safetensors.SafetensorError, KeyError, RuntimeError):
                console.print(f"{file} is damaged: reference scores are made again", markup=False, soft_wrap=True)
        made = make()
        _write(file, made)
    return made


def name(policy: torch.nn.Module, forget: Sequence[Encoded], batching: str) -> str:
    """Hexadecimal digest of what the scores depend on."""
    device = next(policy.parameters()).device.type
    mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    digest = hashlib.sha256(f"1 {batching} {mixed}".encode())
    for item in forget:
        answer = [u or g for u, g in zip(item.uw, item.gw, strict=True)]
        digest.update(repr((item.input_ids, answer)).encode())
    for key, weight in policy.named_parameters():
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)} {_checksum(weight)}".encode())
    return digest.hexdigest()[:32]


def _checksum(weight: torch.Tensor) -> int:
    """Of the bits, each place with a factor of its own, modulo 2^64; computed where the weight is."""
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    total = 0
    for part in weight.detach().flatten().view(kind).split(2**22):
        place = torch.arange(1, len(part) + 1, device=part.device) * 6364136223846793005 | 1
        total = (total * 31 + int((part.long() * place).sum())) % 2**64
    return total


def _write(file: Path, rows: Sequence[TokenScores]) -> None:
    whole = {key: torch.cat([getattr(row, key)[0] for row in rows]) for key in NAMES}
    file.parent.mkdir(parents=True, exist_ok=True)  # deleted while the scores were computed
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with os_errors_naming(file):
            safetensors.torch.save_file(whole, partial)
            os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _read(file: Path, forget: Sequence[Encoded]) -> list[TokenScores]:
    lengths = [len(e.input_ids) - 1 for e in forget]
    whole = safetensors.torch.load_file(file)
    parts = [whole[key].split(lengths) for key in NAMES]  # RuntimeError where the lengths do not add up
    return [TokenScores(*(values[None].clone() for values in row)) for row in zip(*parts, strict=True)]
