"""Run folders and the cache of stages: where things are, what made them, whether they are complete."""

import contextlib
import dataclasses
import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from rich.markup import escape

import tif
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.paths import check_writable
from tif.config.schema import Config, Run
from tif.training.checkpoints import is_whole, listed, remove
from tif.utils.environment import describe_environment
from tif.utils.files import write_text
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console

LOCK = ".lock"  # held while a process makes the run
PLACES = ("accelerator", "devices", "strategy")  # keys of `trainer` that say where, not what
DONE = "summary.json"  # written last: a folder that has it is complete


@contextlib.contextmanager
def claimed(cfg: Config) -> Iterator[tuple[Path, Path | None]]:
    """The folder for a run of `cfg`, and the checkpoint that it goes on from; nobody else gets it inside.

    An unfinished run of the same configuration is taken up again (`run.resume=auto`), unless another process is at it;
    otherwise a name in use gets -2, -3, ... `run.resume=<path>` is the run of that checkpoint.

    Raises:
        ConfigError: If the checkpoint's run is being made by another process, or 10,000 names are in use.
    """
    if cfg.run.resume not in ("auto", "never"):
        checkpoint = Path(cfg.run.resume).expanduser()
        lock = _lock(_run_of(checkpoint))
        if lock is None:
            raise ConfigError(f"run.resume: {_run_of(checkpoint)} is being made by another process")
        with lock:
            yield _run_of(checkpoint), checkpoint
        return
    base = Path(cfg.run.folder) / cfg.run.name
    for number in range(1, 10_000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        if _usable(folder, cfg):
            if (lock := _lock(folder)) is None:
                console.print(f"{folder} is being made by another process: this run gets another name", markup=False,
                              soft_wrap=True)  # fmt: skip
                continue
            with lock:
                if _usable(folder, cfg):  # still, now that nobody else can change it
                    yield folder, newest_checkpoint(folder)
                    return
    raise ConfigError(f"run.name: 10,000 folders {base}-N are in use; give another name")


def _usable(folder: Path, cfg: Config) -> bool:
    """Whether a run of `cfg` may start or go on here."""
    if not folder.is_dir():
        return not folder.exists()
    if {p.name for p in folder.iterdir()} <= {LOCK}:
        return True
    return cfg.run.resume == "auto" and same_config(folder, cfg) and not (folder / DONE).exists()


def _lock(folder: Path) -> filelock.BaseFileLock | None:
    """The folder's lock, taken; None where another process has it. The system takes it back when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    return lock


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent


def check_resume(cfg: Config) -> None:
    """Stop where `run.resume` names no whole checkpoint of an unfinished run of this configuration.

    Raises:
        ConfigError: Naming the key and what differs.
    """
    if cfg.run.resume in ("auto", "never"):
        return
    path = Path(cfg.run.resume).expanduser()
    folder = _run_of(path)
    if not path.exists():
        raise ConfigError(f"run.resume: no {path}; want auto, never or a run's checkpoints/epoch=N-step=N.ckpt")
    if path not in listed(path.parent) or not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"run.resume: {path} is no run's checkpoint; want <run>/checkpoints/epoch=N-step=N.ckpt"
        )
    if not is_whole(path):
        raise ConfigError(f"run.resume: {path} is damaged; want another checkpoint, or auto")
    if (folder / DONE).exists():
        raise ConfigError(f"run.resume: the run {folder} is finished; there is nothing to go on with")
    made_by = config.read(Config, [str(folder / "config.yaml")])
    theirs, ours = (dataclasses.asdict(dataclasses.replace(c, run=Run(seed=c.run.seed))) for c in (made_by, cfg))
    if found := _difference(theirs, ours, ""):
        key, theirs, ours = found
        raise ConfigError(
            f"run.resume: the run {folder} has {key}={theirs}, this configuration {ours}; want the same"
        )


def _difference(theirs: Any, ours: Any, key: str) -> tuple[str, Any, Any] | None:
    """Key and values of the first entry that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        found = (_difference(theirs[k], ours[k], f"{key}.{k}".lstrip(".")) for k in theirs)
        return next((f for f in found if f), None)
    return None if theirs == ours else (key, theirs, ours)


def finished(cfg: Config) -> Path | None:
    """The folder of a complete run of exactly this configuration; None where there is none."""
    base = Path(cfg.run.folder) / cfg.run.name
    for folder in sorted(base.parent.glob(f"{glob.escape(base.name)}*")):
        if same_config(folder, cfg) and (folder / DONE).exists():
            return folder
    return None


def same_config(folder: Path, cfg: Config) -> bool:
    """Whether the folder holds a run of exactly this configuration."""
    file = folder / "config.yaml"
    return file.is_file() and file.read_text(encoding="utf-8") == header(cfg)


def check_folder(cfg: Config) -> None:
    """Stop where `run.folder` can hold no runs, or not this one.

    Raises:
        ConfigError: Naming the key.
    """
    folder = Path(cfg.run.folder)
    for path in (folder, folder / "stages", folder / "references"):
        check_writable("run.folder", path)
    if _usable(folder / cfg.run.name, cfg):
        check_writable("run.name", folder / cfg.run.name)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over."""
    for path in listed(folder / "checkpoints"):
        if is_whole(path):
            return path
        console.print(f"{escape(str(path))} is damaged: looking for an older one", soft_wrap=True)
    return None


def header(cfg: Config) -> str:
    """The resolved configuration as it is written to the run folder; its first line repeats the run."""
    cfg = dataclasses.replace(cfg, run=dataclasses.replace(cfg.run, resume="auto"))  # how it began is no part of it
    return f"# python -m tif.fit {cfg.run.folder}/{cfg.run.name}/config.yaml\n{config.to_yaml(cfg)}"


def write_start(folder: Path, cfg: Config) -> None:
    """config.yaml and env.json; what a killed process left half written is swept away."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in [*folder.rglob(".*.tmp"), *folder.rglob(".*.unfinished"), *folder.glob("model*.partial")]:
        remove(left)
    write_text(folder / "config.yaml", header(cfg))
    write_text(folder / "env.json", json.dumps(describe_environment(), indent=1) + "\n")


def stage_folder(cfg: Config, name: str, benchmark_print: str) -> Path:
    """Where the stage's run is kept: <run.folder>/stages/<name>-<hash of all that determines its weights>.

    Args:
        cfg: the stage's own configuration.
        name: target, retain, ...
        benchmark_print: fingerprint of what it trains on.
    """
    what = [tif.__version__, *determining(cfg), benchmark_print, list_model_files(cfg.model.path)]
    return Path(cfg.run.folder) / "stages" / f"{name}-{hash_json(what)}"


def determining(cfg: Config) -> list[Any]:
    """Of a stage's configuration, what its weights depend on, beside its data and the weights it starts from."""
    keys = dataclasses.asdict(cfg)
    kept = {section: keys[section] for section in ("model", "optimizer", "trainer")}
    kept["model"]["lora"].pop("merge")  # a stage's model is always whole
    kept["data"] = {key: keys["data"][key] for key in ("train", "template", "max_tokens", "batch_size", "batching")}
    # Finetuning reads no other key of the loss, and these of the others change cost or rows, not weights.
    negated = cfg.data.train == "forget" and cfg.loss.task_vector is not None
    kept["loss"] = {"forget": "ce"} if cfg.loss.forget == "ce" and not negated else keys["loss"]
    for section, key in (
        *(("trainer", k) for k in PLACES),
        ("trainer", "log_every_n_steps"),
        ("model", "reference"),
        ("model", "base"),
    ):
        kept[section].pop(key)
    return [cfg.run.seed, kept]
