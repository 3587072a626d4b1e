"""Read a run folder: rows of metrics, records, and the small files of JSON and YAML beside them.

The other files of this room read run folders through this one. What cannot be read is a
DamagedFile: one line with the file's name and what to delete. No torch is imported, so that
`tif report` starts at once.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from tif.config.data import Data
from tif.config.errors import one_line
from tif.config.evaluation import Eval
from tif.config.layers import flatten
from tif.config.load import read_yaml
from tif.metrics.targeted import summarize_forget_words
from tif.records import answer_tokens, metrics_log
from tif.records import files as records
from tif.records.answer_tokens import AnswerTokens
from tif.records.json_values import load_json, parse
from tif.records.run_times import read_times
from tif.utils.files import DamagedFile, read_bytes
from tif.utils.terminal import describe_seconds

RETAIN_FOLDER = "eval/retain_model"  # the retain model's records, written by the run
SUMMARY_FILE = "summary.json"
CONFIG_FILE = "config.yaml"
# Keys of summary.json -> the row that the intervals belong to.
INTERVALS = {"intervals": "end", "start_intervals": "start"}
Metrics = dict[str, float | None]
K = TypeVar("K")


@dataclasses.dataclass(frozen=True)
class ReportKeys:
    """Keys of section `eval`, with its defaults."""

    samples: int = Eval.samples
    best: str = Eval.best


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """Keys of section `data`, with its defaults."""

    benchmark: str = Data.benchmark
    split: str | None = Data.split


def title_of(folder: Path) -> str:
    """Return what a run is called in its reports: its folder's name, with a sweep's run before it.

    runs/methods/tpo/seed0 is tpo/seed0.
    """
    folder = folder.resolve()
    is_seed = re.fullmatch(r"seed\d+(-\d+)?", folder.name)
    return f"{folder.parent.name}/{folder.name}" if is_seed else folder.name


def evaluation_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of evaluated epochs, in order; epoch 0 is the model before training."""
    return metrics_log.read_evaluation_rows(folder / metrics_log.FILE_NAME)


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of optimizer steps, in order."""
    return metrics_log.read_training_rows(folder / metrics_log.FILE_NAME)


def retain_row(folder: Path) -> Metrics:
    """Return the retain model's metrics under the run's rules; empty where the run had none."""
    path = folder / RETAIN_FOLDER / records.AGGREGATES
    with deletable(path):
        content = load_json(path) if path.exists() else {}
        metrics = parse(Metrics, content.get("metrics", {}), path, "metrics")
    retain = read_retain_records(folder)
    if retain is not None:
        metrics |= summarize_forget_words(retain.sets, read_tokens(folder))
    return metrics


def read_intervals(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the last epoch's intervals by metric; empty where the run did not finish."""
    return read_summary_intervals(folder).get("intervals", {})


def read_summary_intervals(folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the intervals of summary.json, of each of INTERVALS that it has."""
    path = folder / SUMMARY_FILE
    kind, intervals = dict[str, tuple[float, float]], {}
    with deletable(path):
        content = load_json(path) if path.exists() else {}
        for key in INTERVALS:
            intervals[key] = parse(kind, content.get(key, {}), path, key)
    return intervals


def read_numbers(folder: Path) -> dict[str, Any]:
    """Return the numbers of a run: its epochs, the retain model, intervals and steps."""
    return {
        "epochs": evaluation_rows(folder),
        "retain_model": retain_row(folder),
        **read_summary_intervals(folder),
        "groups": read_groups(folder),
        "steps": read_steps(folder),
    }


def read_groups(folder: Path) -> dict[str, dict[str, int]]:
    """Return by set how many of each unit the intervals of summary.json are over."""
    path = folder / SUMMARY_FILE
    with deletable(path):
        content = load_json(path) if path.exists() else {}
        return parse(dict[str, dict[str, int]], content.get("groups", {}), path, "groups")


def read_records(folder: Path, epoch: int) -> records.Evaluation | None:
    """Return the records of an epoch's evaluation; None where there are none."""
    path = folder / "eval" / str(epoch)
    with deletable(path):
        return records.read_evaluation(path) if path.exists() else None


def read_retain_records(folder: Path) -> records.Evaluation | None:
    """Return the retain model's records under the run's rules; None where the run had none."""
    path = folder / RETAIN_FOLDER
    with deletable(path):
        return records.read_evaluation(path) if path.exists() else None


def read_tokens(folder: Path) -> dict[str, dict[str, AnswerTokens]]:
    """Return how the evaluated answers are cut into tokens, by set and id."""
    with deletable(folder / "eval" / answer_tokens.FILE_NAME):
        return answer_tokens.read_answer_tokens(folder / "eval")


def eval_section(folder: Path) -> ReportKeys:
    """Return what reports read of section `eval` of the run's configuration."""
    return _read_section(folder, "eval", ReportKeys)


def data_section(folder: Path) -> DataKeys:
    """Return what reports read of section `data` of the run's configuration."""
    return _read_section(folder, "data", DataKeys)


def _read_section(folder: Path, section: str, keys_type: type[K]) -> K:
    """Return some keys of a section of the run's config.yaml; defaults where it has none."""
    keys, path = read_config(folder), folder / CONFIG_FILE
    with deletable(path):
        return parse(keys_type, keys.get(section, {}), path, section)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.yaml; empty where the folder has none."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return {}
    with deletable(path):
        read_bytes(path)  # refuses a folder or a device, for which YAML's reader would wait
        return parse(dict[str, Any], OmegaConf.to_container(read_yaml(path)), path)


def read_flat_config(folder: Path) -> dict[str, Any]:
    """Return the values of config.yaml by dotted key; empty where the folder has none."""
    return flatten(read_config(folder))


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of env.json: versions, commit, hardware; empty where there is none."""
    path = folder / "env.json"
    with deletable(path):
        return load_json(path) if path.exists() else {}


@contextlib.contextmanager
def deletable(path: Path) -> Iterator[None]:
    """Raise what cannot be read in the block as DamagedFile; reports do without the file."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        line = one_line(error)
        line = line if str(path) in line else f"{path}: {line}"
        raise DamagedFile(f"{line}; delete {path} to see what is left") from None


def describe_times(folder: Path) -> str:
    """Return how long the parts of a run took, as "stage target 2 min 1 s, training 48 s"."""
    parts = []
    for name, seconds in read_times(folder).items():
        if seconds >= 1:
            parts.append(f"{name} {describe_seconds(seconds)}")
    return ", ".join(parts)


def read_steps(folder: Path) -> dict[str, int | None]:
    """Return the optimizer steps of a run: {"planned", "made"}; planned is None in older runs."""
    path = folder / SUMMARY_FILE
    with deletable(path):
        content = load_json(path) if path.exists() else {}
        if "steps" in content:
            return parse(dict[str, int | None], content["steps"], path, "steps")
    return count_steps(folder)


def count_steps(folder: Path) -> dict[str, int | None]:
    """Return the optimizer steps that env.json plans and the rows of metrics show."""
    rows = metrics_log.read_rows(folder / metrics_log.FILE_NAME)
    steps_made = max((metrics_log.steps_before(row) for row in rows), default=0)
    return {"planned": read_environment(folder).get("steps_planned"), "made": steps_made}
