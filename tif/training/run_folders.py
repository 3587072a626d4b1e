"""Run folders: which one a run gets, who may write in it, and the checkpoint it goes on from.

`config_text` is what config.yaml holds; two runs are the same if their texts are. Called by
`training/run`, by `training/plan` for its checks, and by `sweep` to find finished runs.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import filelock

from tif.config.errors import ConfigError
from tif.config.paths import check_writable
from tif.config.schema import Run
from tif.training.checkpoints import is_intact, list_checkpoints, remove
from tif.training.shards import find_danger
from tif.utils.environment import describe_environment
from tif.utils.files import write_text
from tif.utils.terminal import console

LOCK = ".lock"  # held while a process makes the run
CONFIG = "config.yaml"
DONE = "summary.json"  # written last: a folder that has it is complete
NO_PATH = ("auto", "never")  # values of `run.resume` that are no checkpoint's path


@contextlib.contextmanager
def claim_run_folder(settings: Run, config_text: str) -> Iterator[tuple[Path, Path | None]]:
    """Give a run its folder and the checkpoint that it goes on from; nobody else gets it inside.

    An unfinished run of the same configuration goes on (`run.resume=auto`), unless another process
    makes it; otherwise a name in use gets -2, -3, ... `run.resume=<path>` is that checkpoint's run.
    """
    if settings.resume not in NO_PATH:
        checkpoint = Path(settings.resume).expanduser()
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
        if not is_usable(folder, settings, config_text):
            continue
        lock = _try_lock(folder)
        if lock is None:
            message = f"{folder} is being made by another process: this run gets another name"
            console.print(message, soft_wrap=True)
            continue
        with lock:
            # Asked again: another process may have finished the run before the lock was ours.
            if is_usable(folder, settings, config_text):
                yield folder, find_newest_checkpoint(folder)
                return
    raise ConfigError(f"run.name: 10,000 folders {base}-N are in use; give another name")


def is_usable(folder: Path, settings: Run, config_text: str) -> bool:
    """Return whether a run may start in a folder or go on there."""
    if not folder.is_dir():
        return not folder.exists()
    if {path.name for path in folder.iterdir()} <= {LOCK}:
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


def is_finished(folder: Path) -> bool:
    """Return whether the folder holds a complete run."""
    return (folder / DONE).exists()


def has_config(folder: Path, config_text: str) -> bool:
    """Return whether the folder holds a run of exactly this configuration."""
    file = folder / CONFIG
    return file.is_file() and file.read_text(encoding="utf-8") == config_text


def check_run_folder(settings: Run, config_text: str) -> None:
    """Raise ConfigError, which names the key, where the run's folders cannot be written to."""
    parent = Path(settings.folder)
    for folder in (parent, parent / "stages", parent / "references"):
        check_writable("run.folder", folder)
    if is_usable(parent / settings.name, settings, config_text):
        check_writable("run.name", parent / settings.name)


def check_checkpoint(path: Path) -> None:
    """Raise ConfigError where `path`, from `run.resume`, is no checkpoint of an unfinished run."""
    folder, pattern, problem = path.parent.parent, "checkpoints/epoch=N-step=N.ckpt", None
    if not path.exists():
        problem = f"no {path}; want auto, never or a run's {pattern}"
    elif path not in list_checkpoints(path.parent) or not (folder / CONFIG).is_file():
        problem = f"{path} is no run's checkpoint; want <run>/{pattern}"
    elif not is_intact(path):
        problem = f"{path} is damaged; want another checkpoint, or auto"
    elif is_finished(folder):
        problem = f"the run {folder} is finished; there is nothing to go on with"
    if problem:
        raise ConfigError(f"run.resume: {problem}")
    _refuse_dangerous(path)


def _refuse_dangerous(checkpoint: Path) -> None:
    danger = find_danger(checkpoint) if checkpoint.is_dir() else None
    if danger:
        raise ConfigError(
            f"run.resume: {checkpoint} holds more than weights and numbers, and could run code "
            f"({danger}); delete it, or give run.resume=never"
        )


def find_newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run that is intact; damaged ones are reported.

    Raises:
        ConfigError: If reading it could run code.
    """
    for path in list_checkpoints(folder / "checkpoints"):
        if is_intact(path):
            _refuse_dangerous(path)
            return path
        console.print(f"{path} is damaged: looking for an older one", soft_wrap=True)
    return None


def start_run(folder: Path, config_text: str) -> None:
    """Write config.yaml and env.json; delete what a killed process left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("**/.*.tmp", "**/.*.unfinished", "model*.partial"):
        for path in list(folder.glob(pattern)):
            remove(path)
    write_text(folder / CONFIG, config_text)
    write_text(folder / "env.json", json.dumps(describe_environment(), indent=1) + "\n")
