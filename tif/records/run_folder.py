"""What a run folder is: the names of its files, how they begin, and how they are read.

Training writes a run folder; reports, audits and the API read it through this file. A file that
cannot be read raises DamagedFile: one line with its name and what to delete. No torch is imported,
so that `tif report` starts at once.
"""

import contextlib
import dataclasses
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from tif.config.errors import one_line
from tif.config.files import read_yaml
from tif.config.layers import flatten
from tif.records import files as records
from tif.records import metrics_log
from tif.records.json_values import load_json, parse
from tif.records.types import AnswerTokens
from tif.utils import distributed
from tif.utils.environment import describe_environment
from tif.utils.files import DamagedFile, read_bytes, remove_unfinished, write_text

T = TypeVar("T")

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "env.json"
TIMES_FILE = "times.json"  # how long the parts of a run took
SUMMARY_FILE = "summary.json"  # written last: a folder that has it is complete
MODEL_FILES = "model"  # key of summary.json: size and checksum of the exported model's files
RETAIN_FOLDER = "eval/retain_model"  # the retain model's records, written by the run
# Keys of summary.json -> the row that the intervals belong to.
INTERVALS = {"intervals": "end", "start_intervals": "start"}
Intervals = dict[str, tuple[float, float]]
Seconds = dict[str, float]  # by the name of a part of the run


@dataclasses.dataclass(frozen=True)
class Summary:
    """What reports read of summary.json; empty where a run did not finish.

    Attributes:
        intervals, start_intervals: of the last and the first evaluation, by metric.
        groups: how many of each unit the intervals are over, by set.
        steps: optimizer steps, {"planned", "made"}; None in older runs.
    """

    intervals: Intervals = dataclasses.field(default_factory=dict)
    start_intervals: Intervals = dataclasses.field(default_factory=dict)
    groups: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    steps: dict[str, int | None] | None = None


def start_run(
    folder: Path, config_text: str, steps: int | None = None,
    stages: Mapping[str, Path] | None = None,
) -> None:  # fmt: skip
    """Write config.yaml and env.json; delete what a killed process left half written.

    `steps`: those of the optimizer that are planned. `stages`: folders of the stages that the run
    needs, by name. They stand in env.json as seen from the run's folder, so that both can be moved
    together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    write_text(folder / CONFIG_FILE, config_text)
    paths = {name: os.path.relpath(stage, folder) for name, stage in (stages or {}).items()}
    environment = {**describe_environment(), "steps_planned": steps, "stages": paths}
    write_text(folder / ENVIRONMENT_FILE, json.dumps(environment, indent=1) + "\n")


def find_stage(folder: Path, name: str) -> Path | None:
    """Return the folder of a run's stage as its env.json names it; None where it names none."""
    try:
        paths = json.loads(read_bytes(folder / ENVIRONMENT_FILE)).get("stages", {})
        return Path(os.path.normpath(folder / paths[name]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_finished(folder: Path) -> bool:
    """Return whether the folder holds a complete run."""
    return (folder / SUMMARY_FILE).exists()


def has_config(folder: Path, config_text: str) -> bool:
    """Return whether the folder holds a run of exactly this configuration."""
    file, content = folder / CONFIG_FILE, config_text.encode()
    # A file of /proc counts as regular and may never end; it has the size 0.
    return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content


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
        expected, actual = load_json(folder / SUMMARY_FILE).get(MODEL_FILES), describe_model(folder)
    except (OSError, ValueError) as error:
        return one_line(error)
    if not isinstance(expected, dict):
        return f"{folder / SUMMARY_FILE} has no {MODEL_FILES}"
    for name, size_and_checksum in expected.items():
        if actual.get(name) != size_and_checksum:
            return f"{folder / 'model' / name} is damaged or missing"
    return None


def evaluation_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of evaluated epochs, in order; epoch 0 is the model before training."""
    rows = metrics_log.read_rows(folder / metrics_log.FILE_NAME)
    return [row for row in rows if metrics_log.is_evaluation_row(row)]


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of optimizer steps, in order."""
    rows = metrics_log.read_rows(folder / metrics_log.FILE_NAME)
    return [row for row in rows if not metrics_log.is_evaluation_row(row)]


def read_summary(folder: Path) -> Summary:
    """Return what reports read of summary.json."""
    content = _read(folder / SUMMARY_FILE, lambda path: parse(Summary, load_json(path), path))
    return content or Summary()


def read_steps(folder: Path) -> dict[str, int | None]:
    """Return the optimizer steps of a run: {"planned", "made"}; planned is None in older runs."""
    return read_summary(folder).steps or count_steps(folder)


def count_steps(folder: Path) -> dict[str, int | None]:
    """Return the optimizer steps that env.json plans and the rows of metrics show."""
    rows = metrics_log.read_rows(folder / metrics_log.FILE_NAME)
    steps_made = max((metrics_log.steps_before(row) for row in rows), default=0)
    return {"planned": read_environment(folder).get("steps_planned"), "made": steps_made}


def read_records(folder: Path, epoch: int) -> records.Evaluation | None:
    """Return the records of an epoch's evaluation; None where there are none."""
    return _read(folder / "eval" / str(epoch), records.read_evaluation)


def read_retain_records(folder: Path) -> records.Evaluation | None:
    """Return the retain model's records under the run's rules; None where the run had none."""
    return _read(folder / RETAIN_FOLDER, records.read_evaluation)


def read_tokens(folder: Path) -> dict[str, dict[str, AnswerTokens]]:
    """Return how the evaluated answers are cut into tokens, by set and id."""
    file = folder / "eval" / records.TOKENS
    return _read(file, lambda path: records.read_answer_tokens(path.parent)) or {}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.yaml; empty where the folder has none."""
    return _read(folder / CONFIG_FILE, _read_config) or {}


def _read_config(path: Path) -> dict[str, Any]:
    read_bytes(path)  # refuses a folder or a device, for which YAML's reader would wait
    return dict(parse(dict[str, Any], OmegaConf.to_container(read_yaml(path)), path))


def read_flat_config(folder: Path) -> dict[str, Any]:
    """Return the values of config.yaml by dotted key; empty where the folder has none."""
    return flatten(read_config(folder))


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of env.json: versions, commit, hardware; empty where there is none."""
    return _read(folder / ENVIRONMENT_FILE, load_json) or {}


def read_times(folder: Path) -> Seconds:
    """Return the seconds by name; none where the file is missing or damaged."""
    path = folder / TIMES_FILE
    try:
        return dict(parse(Seconds, load_json(path), path))
    except (OSError, ValueError):
        return {}


def add_times(folder: Path, seconds: Mapping[str, float]) -> None:
    """Add seconds to those in the folder. All processes may call; the first one writes."""
    if not distributed.is_first_rank():
        return
    times = read_times(folder)
    for name, value in seconds.items():
        times[name] = round(times.get(name, 0.0) + value, 3)
    write_text(folder / TIMES_FILE, json.dumps(times, indent=1) + "\n")


@contextlib.contextmanager
def measured(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time that the block takes to `seconds`, also where it raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def _read(path: Path, read: Callable[[Path], T]) -> T | None:
    """Return what is read of a path; None where there is nothing."""
    with deletable(path):
        return read(path) if path.exists() else None


@contextlib.contextmanager
def deletable(path: Path) -> Iterator[None]:
    """Raise what cannot be read in the block as DamagedFile; reports do without the file."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        line = one_line(error)
        line = line if str(path) in line else f"{path}: {line}"
        raise DamagedFile(f"{line}; delete {path} to see what is left") from None
