"""What a run logs to: metrics.jsonl and Weights & Biases (`logger.wandb.enabled`)."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tif.metrics import overall
from tif.records import metrics_log, run_folder
from tif.reports import wandb_content as content
from tif.reports.html.charts import Chart
from tif.reports.wandb_content import Piece
from tif.training.plan import Plan, wants_spans
from tif.utils import distributed

if TYPE_CHECKING:
    from tif.reports.wandb_run import Labels, RunLogger


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
        return distributed.run_on_first_rank(lambda: run_folder.evaluation_rows(self.path.parent))


@contextlib.contextmanager
def wandb_loggers(plan: Plan, folder: Path) -> Iterator[list["RunLogger"]]:
    """Give the W&B logger of the run in `folder`, or an empty list where none is wanted.

    What the run is made from is logged at once; `log_outputs` logs the rest. The W&B run ends with
    the block.
    """
    settings = plan.cfg.logger.wandb
    if not settings.enabled:
        yield []
        return
    from tif.reports.wandb_run import RunLogger, logged_run, read_run_id

    # Of W&B's agent, whose run this is; stages have runs of their own.
    wanted = os.environ.get("WANDB_RUN_ID") if plan.stage is None else None
    logger = RunLogger(
        settings, folder, _make_labels(plan, folder), run_id=read_run_id(folder, wanted),
        best=overall.get_best_metric(plan.cfg.eval.best),
        unwanted=content.unwanted_words(plan.benchmark.forget),
    )  # fmt: skip
    variant = content.describe_variant(plan.cfg.run.name)
    with logged_run(logger, dataclasses.asdict(plan.cfg) | variant):
        logger.log_pieces(_list_inputs(plan), [])
        yield [logger]


def _make_labels(plan: Plan, folder: Path) -> "Labels":
    """Return what W&B groups the run by: sweep or run, what it makes, method and data."""
    from tif.reports.wandb_run import Labels

    cfg = plan.cfg
    job_types = {"full": "target", "retain": "retain", "forget": "unlearn"}
    job_type = plan.stage if plan.stage == "reinforced" else job_types[cfg.data.train]
    tags = content.short_name(plan.benchmark).split("/")
    if job_type == "unlearn":
        terms = (cfg.loss.forget, cfg.loss.preserve, cfg.loss.retain)
        tags.append("+".join(term for term in terms if term != "none"))
        tags += cfg.run.name.split("/")[:-1]  # the sweep and the variant
    parent = Path(cfg.run.folder)
    name = folder.relative_to(parent) if folder.is_relative_to(parent) else folder.name
    return Labels(str(name), content.group_of(plan.run_name), job_type, tags)


def _list_inputs(plan: Plan) -> list[Piece]:
    """Return the data, the spans and the model that a run is made from."""
    cfg, benchmark = plan.cfg, plan.benchmark
    pieces = [content.data_piece(benchmark)]
    if wants_spans(cfg):
        pieces.append(content.spans_piece(benchmark, plan.span_file))
    if cfg.model.path:
        pieces.append(content.model_piece(Path(cfg.model.path).expanduser()))
    return pieces


def log_outputs(
    loggers: Sequence["RunLogger"], plan: Plan, folder: Path, charts: Sequence[Chart]
) -> None:
    """Log the models, records and report of a finished run as artifacts, its charts as pictures."""
    if not loggers:
        return
    pieces = []
    if (folder / "model_best").is_dir():
        pieces.append(content.model_piece(folder / "model_best", ["best"]))
    if (folder / "model").is_dir():  # without a model_best/, the last epoch is the best
        aliases = ["last"] if pieces or plan.stage else ["last", "best"]
        pieces.append(content.model_piece(folder / "model", aliases))
    if (folder / "eval").is_dir():
        pieces.append(content.records_piece(content.name_run(folder), folder / "eval"))
    report = content.report_piece(folder)
    for logger in loggers:
        logger.log_charts(charts)
        logger.log_pieces([], [*pieces, report] if report else pieces)
