"""Run folders: which one a run gets, who may write in it, and the checkpoint it goes on from.

Two runs are the same if the texts of their config.yaml are. What a kill or a failing disk left
damaged is told in a line and made again from what is intact. Called by `training/run`, by
`training/plan` for its checks, and by `sweep` to find finished runs.
"""

import contextlib
import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock

from tif.config.errors import ConfigError, one_line
from tif.config.paths import check_writable
from tif.config.schema import Run
from tif.records import files as records
from tif.records import metrics_log
from tif.records.json_values import load_json
from tif.training.checkpoints import is_intact, list_checkpoints, steps_done
from tif.training.shards import find_danger
from tif.utils.environment import describe_environment
from tif.utils.files import read_bytes, remove_unfinished, write_text
from tif.utils.terminal import console

LOCK = ".lock"  # held while a process makes the run
CONFIG = "config.yaml"
DONE = "summary.json"  # written last: a folder that has it is complete
NO_PATH = ("auto", "never")  # values of `run.resume` that are no checkpoint's path
MODEL_FILES = "model"  # key of summary.json: size and checksum of the exported model's files


@dataclasses.dataclass(frozen=True)
class RunIdentity:
    """What files must fit to belong to a run.

    Attributes:
        config_text: content of its config.yaml.
        numbers: a hash of all keys that change its numbers, which its checkpoints hold.
        log_every: steps between two rows of its metrics.jsonl.
    """

    config_text: str
    numbers: str
    log_every: int


@contextlib.contextmanager
def claim_run_folder(settings: Run, run: RunIdentity) -> Iterator[tuple[Path, Path | None]]:
    """Give a run its folder and the checkpoint that it goes on from; nobody else gets it inside.

    An unfinished run of the same configuration goes on (`run.resume=auto`), unless another process
    makes it; otherwise a name in use gets -2, -3, ... `run.resume=<path>` is that checkpoint's run.
    """
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
        if not is_usable(folder, settings, run.config_text):
            continue
        lock = _try_lock(folder)
        if lock is None:
            message = f"{folder} is being made by another process: this run gets another name"
            console.print(message, soft_wrap=True)
            continue
        with lock:
            # Asked again: another process may have finished the run before the lock was ours.
            if is_usable(folder, settings, run.config_text):
                if folder != base:
                    line = f"run.name: {base} is in use, this run is {folder}"
                    console.print(line, soft_wrap=True)
                yield folder, find_newest_checkpoint(folder, run)
                return
    raise ConfigError(f"run.name: 10,000 folders {base}-N are in use; give another name")


def is_usable(folder: Path, settings: Run, config_text: str) -> bool:
    """Return whether a run may start in a folder or go on there."""
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir()} - {LOCK}
    if all(name.startswith(f".{CONFIG}.") for name in names):  # killed before it had a config.yaml
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
    file, content = folder / CONFIG, config_text.encode()
    # A file of /proc counts as regular and may never end; it has the size 0.
    return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content


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
    elif is_finished(folder):
        problem = f"the run {folder} is finished; there is nothing to go on with"
    if problem:
        raise ConfigError(f"run.resume: {problem}")
    refuse_dangerous(path)


def refuse_dangerous(checkpoint: Path) -> None:
    """Raise ConfigError where reading a checkpoint of shards could run code."""
    danger = find_danger(checkpoint) if checkpoint.is_dir() else None
    if danger:
        raise ConfigError(
            f"run.resume: {checkpoint} holds more than weights and numbers, and could run code "
            f"({danger}); delete it, or give run.resume=never"
        )


def find_newest_checkpoint(folder: Path, run: RunIdentity) -> Path | None:
    """Return the newest checkpoint that a run can go on from; damaged ones are reported.

    Raises:
        ConfigError: If reading it could run code.
    """
    for path in list_checkpoints(folder / "checkpoints"):
        damage = find_damage(path, run)
        if damage is None:
            refuse_dangerous(path)
            return path
        console.print(f"{damage}: looking for an older one", soft_wrap=True)
    return None


def find_damage(checkpoint: Path, run: RunIdentity) -> str | None:
    """Return in a line why a run cannot go on from a checkpoint, or None.

    The rows of the steps before it must be there, and the records of the evaluations among them:
    nothing makes them again.
    """
    if not is_intact(checkpoint, run.numbers):
        return f"{checkpoint} is damaged"
    steps = steps_done(checkpoint)
    rows, damage = read_rows(checkpoint.parent.parent)
    training_rows = [row for row in rows if not metrics_log.is_evaluation_row(row)]
    count = sum(metrics_log.steps_before(row) <= steps for row in training_rows)
    if count < steps // run.log_every:
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


def describe_model(folder: Path) -> dict[str, list[int]]:
    """Return size and checksum of the first MB of each file of a run's exported model."""
    described = {}
    for path in sorted(folder.glob("model/*")):
        if path.is_file():
            with path.open("rb") as file:
                described[path.name] = [path.stat().st_size, zlib.crc32(file.read(2**20))]
    return described


def find_damaged_model(folder: Path) -> str | None:
    """Return in a line what is wrong with the model of a finished run, or None."""
    try:
        expected, actual = load_json(folder / DONE).get(MODEL_FILES), describe_model(folder)
    except (OSError, ValueError) as error:
        return one_line(error)
    if not isinstance(expected, dict):
        return f"{folder / DONE} has no {MODEL_FILES}"
    for name, size_and_checksum in expected.items():
        if actual.get(name) != size_and_checksum:
            return f"{folder / 'model' / name} is damaged or missing"
    return None


def start_run(
    folder: Path, config_text: str, steps: int | None = None,
    stages: Mapping[str, Path] | None = None,
) -> None:  # fmt: skip
    """Write config.yaml and env.json; delete what a killed process left half written.

    Args:
        folder: of the run.
        config_text: content of config.yaml.
        steps: the optimizer steps that are planned.
        stages: folders of the stages that the run needs, by name. They stand in env.json as seen
            from the run's folder, so that both can be moved together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    write_text(folder / CONFIG, config_text)
    paths = {name: os.path.relpath(stage, folder) for name, stage in (stages or {}).items()}
    environment = {**describe_environment(), "steps_planned": steps, "stages": paths}
    write_text(folder / "env.json", json.dumps(environment, indent=1) + "\n")


def find_stage(folder: Path, name: str) -> Path | None:
    """Return the folder of a run's stage as its env.json names it; None where it names none."""
    try:
        paths = json.loads(read_bytes(folder / "env.json")).get("stages", {})
        return Path(os.path.normpath(folder / paths[name]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
