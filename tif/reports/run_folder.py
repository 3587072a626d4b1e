"""Read a run folder: rows of metrics, the retain model's metrics, and what its summary says.

The other files of this room call it; `training.run` writes `summary.json` with it. It needs no
torch, so that `python -m tif.report` starts at once.
"""

import json
from pathlib import Path
from typing import Any

from tif.metrics import overall
from tif.records import files as records
from tif.records import metrics_log

RETAIN_FILE = "retain.json"  # the retain model's metrics, written by the run


def evaluation_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of evaluated epochs, in order; epoch 0 is the model before training."""
    return metrics_log.read_evaluation_rows(folder / metrics_log.FILE_NAME)


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of optimizer steps, in order."""
    return metrics_log.read_training_rows(folder / metrics_log.FILE_NAME)


def retain_row(folder: Path) -> dict[str, Any]:
    """Return the retain model's metrics under the run's rules; empty where the run had none."""
    path = folder / RETAIN_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def eval_section(folder: Path) -> Any:
    """Return section `eval` of the run's configuration."""
    from omegaconf import OmegaConf

    return OmegaConf.load(folder / "config.yaml").eval


def summarize(folder: Path, retain: records.Evaluation | None = None) -> dict[str, Any]:
    """Return the content of `summary.json`: rows of metrics, and intervals of the last evaluation.

    `retain`: the retain model's records; without them, metrics that compare get no interval.
    """
    from tif.metrics.results import named_intervals  # imports scipy

    evaluations, training = evaluation_rows(folder), training_rows(folder)
    intervals = {}
    if evaluations:
        last_records = records.read_evaluation(folder / "eval" / str(evaluations[-1]["epoch"]))
        intervals = named_intervals(last_records, retain)
    best_epoch = overall.find_best_epoch(
        evaluations, overall.get_best_metric(eval_section(folder).best)
    )
    best_rows = [row for row in evaluations if row["epoch"] == best_epoch]
    return {
        "start": evaluations[0] if evaluations else None,
        "end": evaluations[-1] if evaluations else None,
        "best": best_rows[0] if best_rows else None,
        "intervals": {metric: pair for metric, pair in intervals.items() if pair is not None},
        "retain_model": retain_row(folder) or None,
        "training": training[-1] if training else None,
    }
