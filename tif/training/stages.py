"""Stages, the runs whose models other runs need: what decides their weights, and where they are.

Called by `training/plan`, and by `sweep` to make each different stage once.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tif
from tif.config.schema import Data, Loss, Model, Optimizer, TrainerKeys
from tif.utils.hashing import hash_json, list_model_files

# Keys that change cost, rows or what the model is compared with, but not the stage's weights.
NOT_DECIDING = {
    "model": ("base", "reference"),
    "trainer": ("accelerator", "devices", "strategy", "log_every_n_steps"),
}
DECIDING_DATA = ("train", "template", "max_tokens", "batch_size", "batching")


def deciding_keys(
    seed: int, data: Data, model: Model, loss: Loss, optimizer: Optimizer, trainer: TrainerKeys
) -> list[Any]:
    """Return the keys that decide about a stage's weights, beside its samples and first weights."""
    keys = {
        "model": dataclasses.asdict(model),
        "optimizer": dataclasses.asdict(optimizer),
        "trainer": dataclasses.asdict(trainer),
        "data": {key: getattr(data, key) for key in DECIDING_DATA},
        "loss": dataclasses.asdict(loss),
    }
    is_negated = data.train == "forget" and loss.task_vector is not None
    if loss.forget == "ce" and not is_negated:
        keys["loss"] = {"forget": "ce"}  # finetuning reads no other key of the loss
    keys["model"]["lora"].pop("merge")  # the model of a stage is always merged
    for section, names in NOT_DECIDING.items():
        for name in names:
            keys[section].pop(name)
    return [seed, keys]


def stage_folder(
    parent: Path, name: str, deciding: list[Any], samples_print: str, model_path: str | None
) -> Path:
    """Return <parent>/stages/<name>-<hash of all that decides about its weights>.

    Args:
        parent: `run.folder`.
        name: of the stage: target, retain, ...
        deciding: see `deciding_keys`.
        samples_print: fingerprint of the samples that it trains on.
        model_path: the model that it starts from; None = one from scratch.
    """
    files = list_model_files(model_path)
    hashed = hash_json([tif.__version__, *deciding, samples_print, files])
    return parent / "stages" / f"{name}-{hashed}"
