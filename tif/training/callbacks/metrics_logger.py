"""The logger that writes metrics.jsonl; callbacks read the rows of their run from it."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tif.records import metrics_log
from tif.utils import distributed


class MetricsLogger(Logger):
    """Append a row to metrics.jsonl for each call, at once.

    A row of a run that was killed is whole or missing.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Name of the logger; Lightning asks for it."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Version of the log; Lightning asks for it."""
        return ""

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

    @rank_zero_only
    def drop_rows_after(self, steps: int) -> None:
        """Drop the rows after a number of optimizer steps; a resumed run makes them again."""
        metrics_log.drop_rows_after(self.path, steps)
