"""Stages, the runs whose models other runs need: their configurations and what decides weights.

Called by `training/plan`, and by `sweep` to make each different stage once.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tif._version import VERSION
from tif.config.errors import ConfigError
from tif.config.files import read_yaml
from tif.config.layers import flatten
from tif.config.loss import make_loss
from tif.config.schema import Config, Loss
from tif.data.samples import Benchmark, fingerprint, select_training_samples
from tif.utils.hashing import hash_json, list_model_files

# Keys that change cost, rows or what the model is compared with, but not the stage's weights.
NOT_DECIDING = {
    "model": ("base", "reference"),
    "trainer": ("accelerator", "devices", "strategy", "log_every_n_steps"),
}
REINFORCED = "reinforced"  # the stage that learns the forget set more
DECIDING_DATA = ("train", "max_tokens", "batch_size", "batching")


def explain_new_stage(cfg: Config, folder: Path) -> str | None:
    """Return why a stage is made although one of its name exists: the keys that differ.

    Args:
        cfg: of the stage.
        folder: of the stage's run, which is not there yet.

    Returns:
        One line about the stage that differs least; None where there is no other.
    """
    explanations = []
    ours = {"model.lora.rank": cfg.model.lora.rank, **flatten(_by_name(cfg))}
    for path in sorted(folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*/config.yaml")):
        if path.parent == folder:
            continue
        with contextlib.suppress(ConfigError):  # of an older tif
            # As the file has it: `config.load` would import what it names.
            content: Any = OmegaConf.to_container(read_yaml(path))
            theirs = flatten(content)
            differences = []
            for key in ours:
                if ours.get(key) != theirs.get(key):
                    differences.append(f"{key}={ours.get(key)} (there: {theirs.get(key)})")
            reason = ", ".join(differences[:5]) or "other samples, weights or version of tif"
            explanations.append((len(differences), f"not {path.parent.name}: {reason}"))
    return min(explanations)[1] if explanations else None


def _by_name(cfg: Config) -> dict[str, Any]:
    """Return the keys that decide about a stage's weights, by section."""
    seed, keys = deciding_keys(cfg)
    return {"run": {"seed": seed}, **keys}


def deciding_keys(cfg: Config) -> list[Any]:
    """Return the keys that decide about a stage's weights."""
    all_keys = dataclasses.asdict(cfg)
    keys = {section: all_keys[section] for section in ("model", "optimizer", "trainer", "loss")}
    keys["data"] = {key: all_keys["data"][key] for key in DECIDING_DATA}
    keys["data"] |= cfg.data.prompts.describe()
    is_negated = cfg.data.train == "forget" and cfg.loss.task_vector is not None
    if cfg.loss.forget == "ce" and not is_negated:
        keys["loss"] = {"forget": "ce"}  # finetuning reads no other key of the loss
    keys["model"]["lora"].pop("merge")  # the model of a stage is always merged
    if not cfg.model.lora.rank:
        del keys["model"]["lora"]
    for section, names in NOT_DECIDING.items():
        for name in names:
            keys[section].pop(name)
    return [cfg.run.seed, keys]


def stage_config(cfg: Config) -> Config:
    """Return a configuration as a stage's: exported as one plain model, never evaluated."""
    lora = dataclasses.replace(cfg.model.lora, merge=True)
    return dataclasses.replace(
        cfg,
        eval=dataclasses.replace(cfg.eval, enabled=False),
        run=dataclasses.replace(cfg.run, export=True, resume="auto"),
        model=dataclasses.replace(cfg.model, lora=lora),
    )


def list_further_stages(loss: Loss) -> tuple[str, ...]:
    """Return the stages that train the run's own model further, for the loss to learn from."""
    return (REINFORCED,) if loss.has_reinforced_model() else ()


def further_config(cfg: Config) -> Config:
    """Return the configuration of the stage that learns the forget set more (whp, rkld)."""
    finetuning = make_loss(forget="ce", on="all", preserve="none", retain="none")
    trainer = dataclasses.replace(cfg.trainer, max_epochs=cfg.loss.whp_epochs)
    return stage_config(dataclasses.replace(cfg, loss=finetuning, trainer=trainer, stages={}))


def place_stage(cfg: Config, name: str, benchmark: Benchmark) -> Config:
    """Return a stage's configuration with its run in <run.folder>/stages/<name>-<hash>.

    The hash is of all that decides about its weights: keys, samples, the model it starts from. All
    samples decide about the tokenizer of a new model. The same samples may be split otherwise into
    forget and retain set, so what is trained on counts for itself.
    """
    samples = (*benchmark.background, *benchmark.retain, *benchmark.forget)
    trained = select_training_samples(benchmark, cfg.data.train, cfg.data.request)
    retain = () if cfg.loss.retain == "none" else benchmark.retain
    prints = [fingerprint(part) for part in (samples, trained, retain)]
    start = list_model_files(cfg.model.path)
    hashed = hash_json([VERSION, *deciding_keys(cfg), prints, start])
    folder = str(Path(cfg.run.folder) / "stages")
    run = dataclasses.replace(cfg.run, name=f"{name}-{hashed}", folder=folder)
    return dataclasses.replace(cfg, run=run)
