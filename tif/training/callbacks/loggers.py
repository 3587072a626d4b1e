"""What a run logs to: metrics.jsonl and Weights & Biases (`logger.wandb.enabled`)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tif.config.schema import Wandb
from tif.records import metrics_log
from tif.utils import distributed
from tif.utils.terminal import escape_controls


class MetricsLogger(Logger):
    """Append a row to metrics.jsonl for each call, at once; a killed run leaves whole rows."""

    name = "jsonl"
    version = ""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row; Lightning gives the epoch among the metrics."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        metrics_log.append_row(self.path, int(metrics["epoch"]), step, values)

    def evaluations(self) -> list[metrics_log.Row]:
        """Return the rows of the evaluations so far. All processes call; the first one reads."""
        return distributed.run_on_first_rank(lambda: metrics_log.read_evaluation_rows(self.path))


@contextlib.contextmanager
def wandb_loggers(settings: Wandb, folder: Path, config: dict[str, Any]) -> Iterator[list[Logger]]:
    """Give the W&B logger of the run in `folder`, or an empty list where none is wanted.

    Its W&B run ends with the block, since a process makes several runs: stages and the run itself.
    """
    if not settings.enabled:
        yield []
        return
    from lightning.pytorch.loggers import WandbLogger

    keys: dict[str, Any] = {"project": settings.project, "entity": settings.entity}
    keys["offline"] = settings.offline
    logger = WandbLogger(escape_controls(folder.name), folder, **keys)
    logger.experiment.config.update(config)
    try:
        yield [logger]
    except BaseException:
        logger.experiment.finish(1)
        raise
    logger.experiment.finish()
