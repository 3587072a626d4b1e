"""Start or go on: the folder that a run gets, who may write in it, the checkpoint it goes on from.

Two runs are the same if the texts of their config.yaml are. What a kill or a failing disk left
damaged is told in a line and made again from what is intact.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from tif.config import load as config
from tif.config.errors import ConfigError, one_line
from tif.config.files import check_writable
from tif.config.layers import flatten
from tif.config.schema import Config, RunKeys
from tif.records import files as records
from tif.records import metrics_log
from tif.records.run_folder import CONFIG_FILE, has_config, is_finished
from tif.training.checkpoints import is_intact, list_checkpoints, steps_done
from tif.utils.hashing import hash_json
from tif.utils.terminal import console

LOCK = ".lock"  # held while a process makes the run
NO_PATH = ("auto", "never")  # values of `run.resume` that are no checkpoint's path


def config_text(cfg: Config) -> str:
    """Return the text of config.yaml; its first line is the command that repeats the run."""
    run = dataclasses.replace(cfg.run, resume="auto")  # how the run was started is left out
    command = f"# tif fit {run.folder}/{run.name}/{CONFIG_FILE}"
    return f"{command}\n{config.to_yaml(dataclasses.replace(cfg, run=run))}"


def name_result(cfg: Config) -> str:
    """Return a hash of all keys that change a run's numbers, which its checkpoints hold."""
    return hash_json(_list_keys_of_result(cfg))


def _list_keys_of_result(cfg: Config) -> dict[str, Any]:
    """Return the keys that change the numbers of a run, by their dotted names."""
    return flatten(dataclasses.asdict(cfg) | {"run": {"seed": cfg.run.seed}})


@contextlib.contextmanager
def claim_run_folder(cfg: Config) -> Iterator[tuple[Path, Path | None]]:
    """Give a run its folder and the checkpoint that it goes on from; nobody else gets it inside.

    An unfinished run of the same configuration goes on (`run.resume=auto`), unless another process
    makes it; otherwise a name in use gets -2, -3, ... `run.resume=<path>` is that checkpoint's run.
    """
    settings, text = cfg.run, config_text(cfg)
    if settings.resume not in NO_PATH:
        checkpoint = Path(os.path.expanduser(settings.resume))
        folder = checkpoint.parent.parent
        lock = _try_lock(folder)
        if lock is None:
            raise ConfigError(f"run.resume: {folder} is being made by another process")
        with lock:
            yield folder, checkpoint
        return
    base = Path(settings.folder) / settings.name
    numbered = (base.with_name(f"{base.name}-{number}") for number in range(2, 10_000))
    for folder in (base, *numbered):
        if not is_usable(folder, settings, text):
            continue
        lock = _try_lock(folder)
        if lock is None:
            message = f"{folder} is being made by another process: this run gets another name"
            console.print(message, soft_wrap=True)
            continue
        with lock:
            # Asked again: another process may have finished the run before the lock was ours.
            if is_usable(folder, settings, text):
                if folder != base:
                    line = f"run.name: {base} is in use, this run is {folder}"
                    console.print(line, soft_wrap=True)
                yield folder, find_newest_checkpoint(folder, cfg)
                return
    raise ConfigError(f"run.name: 10,000 folders {base}-N are in use; give another name")


def is_usable(folder: Path, settings: RunKeys, config_text: str) -> bool:
    """Return whether a run may start in a folder or go on there."""
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir()} - {LOCK}
    # Killed before it had a config.yaml:
    if all(name.startswith(f".{CONFIG_FILE}.") for name in names):
        return True
    can_go_on = settings.resume == "auto" and not is_finished(folder)
    return can_go_on and has_config(folder, config_text)


def _try_lock(folder: Path) -> filelock.BaseFileLock | None:
    """Return the folder's lock, held, or None; the system releases that of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return None
    return lock


def check_run_folder(cfg: Config) -> None:
    """Raise ConfigError, which names the key, where a run cannot write in its folder or go on.

    If `run.resume` names a checkpoint, its run must have the keys of this one.
    """
    settings, text = cfg.run, config_text(cfg)
    parent = Path(settings.folder)
    for folder in (parent, parent / "stages", parent / "references"):
        check_writable("run.folder", folder)
    if is_usable(parent / settings.name, settings, text):
        check_writable("run.name", parent / settings.name)
    if settings.resume in NO_PATH:
        return
    checkpoint = Path(os.path.expanduser(settings.resume))
    check_checkpoint(checkpoint)
    folder = checkpoint.parent.parent
    theirs = _list_keys_of_result(config.read(Config, [str(folder / CONFIG_FILE)]))
    ours = _list_keys_of_result(cfg)
    for key in {**theirs, **ours}:
        if theirs.get(key) != ours.get(key):
            values = f"{key}={theirs.get(key)}, this configuration {ours.get(key)}"
            raise ConfigError(f"run.resume: the run {folder} has {values}; want the same")
    damage = find_damage(checkpoint, cfg)
    if damage:
        raise ConfigError(f"run.resume: {damage}; want another checkpoint, or auto")


def check_checkpoint(path: Path) -> None:
    """Raise ConfigError where `path`, from `run.resume`, is no checkpoint of an unfinished run."""
    folder, pattern, problem = path.parent.parent, "checkpoints/epoch=N-step=N.ckpt", None
    if not path.exists():
        problem = f"no {path}; want auto, never or a run's {pattern}"
    elif path not in list_checkpoints(path.parent) or not (folder / CONFIG_FILE).is_file():
        problem = f"{path} is no run's checkpoint; want <run>/{pattern}"
    elif is_finished(folder):
        problem = f"the run {folder} is finished; there is nothing to go on with"
    if problem:
        raise ConfigError(f"run.resume: {problem}")


def find_newest_checkpoint(folder: Path, cfg: Config) -> Path | None:
    """Return the newest checkpoint that a run can go on from; damaged ones are reported."""
    for path in list_checkpoints(folder / "checkpoints"):
        damage = find_damage(path, cfg)
        if damage is None:
            return path
        console.print(f"{damage}: looking for an older one", soft_wrap=True)
    return None


def find_damage(checkpoint: Path, cfg: Config) -> str | None:
    """Return in a line why a run cannot go on from a checkpoint, or None.

    The rows of the steps before it must be there, and the records of the evaluations among them:
    nothing makes them again.
    """
    if not is_intact(checkpoint, name_result(cfg)):
        return f"{checkpoint} is damaged"
    steps = steps_done(checkpoint)
    rows, damage = read_rows(checkpoint.parent.parent)
    training_rows = [row for row in rows if not metrics_log.is_evaluation_row(row)]
    count = sum(metrics_log.steps_before(row) <= steps for row in training_rows)
    if count < steps // cfg.trainer.log_every_n_steps:
        return f"{checkpoint} counts on rows that are lost ({damage or 'cut short'})"
    return None


def read_rows(folder: Path) -> tuple[list[metrics_log.Row], str | None]:
    """Return a run's rows before the first that is damaged, or whose evaluation's records are.

    The second value says in a line what is damaged, or is None.
    """
    check = functools.partial(_find_damaged_records, folder)
    return metrics_log.read_intact_rows(folder / metrics_log.FILE_NAME, check)


def _find_damaged_records(folder: Path, row: metrics_log.Row) -> str | None:
    """Return what is wrong with the records behind a row; None also where somebody deleted them."""
    folder = folder / "eval" / str(row["epoch"])
    if not metrics_log.is_evaluation_row(row) or not folder.exists():
        return None
    try:
        for file in folder.rglob(records.AGGREGATES):
            records.read_evaluation(file.parent)
        records.read_evaluation(folder)
    except (OSError, ValueError) as error:
        return one_line(error)
    return None
