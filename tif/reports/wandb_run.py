"""Log to Weights & Biases, through Lightning's logger: runs, evaluations, identifications, audits.

Everything that is logged is read from folders that are there without W&B too, so that it can be
logged again after a kill. No text of the data leaves the machine unless `logger.wandb.samples` or
`logger.wandb.upload` asks for it: W&B gets neither the lines that a command prints, nor its words,
nor the state of a git repository. Called by training/callbacks/loggers.py and the commands.
"""

import contextlib
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from tif.config.schema import Wandb
from tif.metrics import overall
from tif.records.json_values import load_json
from tif.records.metrics_log import Row, is_evaluation_row
from tif.records.run_folder import read_records
from tif.reports import wandb_content
from tif.reports.html.charts import Chart
from tif.reports.html.figures import STYLE, draw_chart
from tif.reports.summary import compute_best
from tif.reports.wandb_content import Piece
from tif.utils import distributed
from tif.utils.files import write_text
from tif.utils.hashing import hash_json
from tif.utils.terminal import escape_controls

ID_FILE = "wandb.json"  # in a run folder: the id of its W&B run, which a resumed run continues
LONGEST_TAG = 64


@dataclasses.dataclass(frozen=True)
class Labels:
    """What W&B groups runs by."""

    name: str  # shown in lists
    group: str  # the sweep, or the run that this one belongs to
    job_type: str  # target, retain, unlearn, evaluate, identify or audit
    tags: Sequence[str] = ()  # such as method and split


class RunLogger(WandbLogger):
    """Log the rows of a run, each once, whatever was logged before the run was stopped.

    Row N of metrics.jsonl is W&B's step N. A resumed run hands in all its rows again; those that
    the server has are left out. Lightning's own logger would append the steps after the last
    checkpoint a second time, and offline it would begin a second, empty curve.

    Args:
        settings: section `logger.wandb`.
        folder: of the run; W&B's files go to <folder>/wandb.
        labels: what the run is grouped by.
        run_id: of W&B; None = a new one.
        best: metric that chooses an epoch; "none" = none is chosen.
        unwanted: unwanted words by sample id, for the tables of samples.
    """

    def __init__(
        self, settings: Wandb, folder: Path, labels: Labels, *, run_id: str | None = None,
        best: str = "none", unwanted: Mapping[str, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        import wandb

        private = wandb.Settings(console="off", disable_git=True, x_disable_meta=True, quiet=True)
        super().__init__(
            escape_controls(labels.name), folder, project=settings.project, entity=settings.entity,
            # Not `offline`, with which Lightning would set WANDB_MODE for the whole process.
            mode="offline" if settings.offline else None, id=run_id, group=labels.group,
            job_type=labels.job_type, tags=[tag[:LONGEST_TAG] for tag in labels.tags],
            settings=private,
        )  # fmt: skip
        self._wandb_init.pop("anonymous", None)  # of which W&B warns, whatever it is
        self.settings, self.folder, self.best = settings, folder, best
        self.unwanted = unwanted or {}
        self.row_count = 0
        self.evaluations: list[Row] = []
        self.defined_metrics: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log one row; Lightning gives the epoch among the metrics."""
        self.log_rows([{**metrics, "epoch": int(metrics["epoch"]), "step": step}])

    @rank_zero_only
    def log_rows(self, rows: Iterable[Row]) -> None:
        """Log rows of metrics.jsonl that come after those which were logged before."""
        run = self.experiment
        for row in rows:
            number, self.row_count = self.row_count, self.row_count + 1
            values = {name: value for name, value in row.items() if value is not None}
            values["trainer/global_step"] = values.pop("step")
            if is_evaluation_row(row):
                self._describe_evaluation(row)
            if number < run.starting_step:
                continue
            if is_evaluation_row(row) and self.settings.samples:
                values |= self._make_sample_table(int(row["epoch"]))
            run.log(values, step=number)

    def _describe_evaluation(self, row: Row) -> None:
        """Define the axis of its metrics, and write the best epoch so far into the summary."""
        run, metric = self.experiment, self.best
        for name in row:
            if name in self.defined_metrics or name in ("epoch", "step"):
                continue
            summary = None
            if name == overall.CHOICE + metric:
                summary = "min" if overall.is_lower_better(metric) else "max"
            run.define_metric(name, step_metric="epoch", summary=summary)
            self.defined_metrics.add(name)
        self.evaluations.append(row)
        epoch = overall.find_best_epoch(self.evaluations, metric)
        if epoch is None or epoch == run.summary.get("best/epoch"):
            return
        (best_row,) = [known for known in self.evaluations if known["epoch"] == epoch]
        choice = overall.CHOICE + metric
        values = {**compute_best(self.folder, epoch).row, choice: best_row[choice]}
        run.summary.update({f"best/{name}": value for name, value in values.items()})
        run.summary["best/definition"] = (
            f"the first epoch after 0 with the best {metric} on one half of the questions; the "
            "numbers are of the other half"
        )

    def _make_sample_table(self, epoch: int) -> dict[str, Any]:
        """Return the table of an epoch's answers; empty where its records were deleted."""
        import wandb

        evaluation = read_records(self.folder, epoch)
        if evaluation is None:
            return {}
        rows = wandb_content.sample_rows(evaluation, self.settings.samples, self.unwanted)
        return {"samples": wandb.Table(columns=list(wandb_content.SAMPLE_COLUMNS), data=rows)}

    @rank_zero_only
    def log_charts(self, charts: Sequence[Chart]) -> None:
        """Log the report's charts as pictures in the last row; of small ones W&B has the curves."""
        import matplotlib
        import wandb

        pictures = {}
        with matplotlib.rc_context(STYLE | {"savefig.dpi": 150}):
            for chart in charts:
                if not chart.small:
                    picture = wandb.Image(draw_chart(chart), caption=chart.title)
                    pictures[f"charts/{chart.name}"] = picture
        if pictures:
            run = self.experiment
            run.log(pictures, step=max(self.row_count - 1, run.starting_step))

    @rank_zero_only
    def log_pieces(self, inputs: Iterable[Piece], outputs: Iterable[Piece]) -> None:
        """Log what the run was made from and what it made, as artifacts with their lineage."""
        run = self.experiment
        for piece in inputs:
            artifact = wandb_content.make_artifact(piece, self.settings.upload)
            if run.offline:
                # `use_artifact` asks the server. This is the record that it leaves.
                run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
            else:
                run.use_artifact(artifact)
        for piece in outputs:
            artifact = wandb_content.make_artifact(piece, self.settings.upload)
            run.log_artifact(artifact, aliases=list(piece.aliases) or None)


@contextlib.contextmanager
def logged_run(logger: RunLogger, config: Mapping[str, Any]) -> Iterator[None]:
    """Start a logger's W&B run with the configuration, and end it with the block.

    A process makes several runs: stages and the run itself. What a killed run left offline is
    deleted, since the same rows are logged again.
    """
    left_before = list(logger.folder.glob(f"wandb/offline-run-*-{logger.version}"))
    keys = wandb_content.without_texts(config, logger.settings.samples)
    logger.experiment.config.update(keys, allow_val_change=True)
    if distributed.is_first_rank() and logger.experiment.offline:
        for folder in left_before:
            shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        logger.experiment.finish(1)
        raise
    logger.experiment.finish()


def read_run_id(folder: Path, wanted: str | None = None) -> str:
    """Return the id of a run folder's W&B run, which is kept there; all processes call.

    `wanted`: the id that W&B's agent gave; it replaces another.
    """

    def read() -> str:
        path = folder / ID_FILE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            run_id = str(load_json(path)["id"])
            if wanted in (None, run_id):
                return run_id
        run_id = wanted or uuid.uuid4().hex[:8]
        write_text(path, json.dumps({"id": run_id}) + "\n")
        return run_id

    return distributed.run_on_first_rank(read)


def log_numbers(
    settings: Wandb, folder: Path, labels: Labels, config: Mapping[str, Any],
    content: wandb_content.Content,
) -> None:  # fmt: skip
    """Log the numbers of a command, with its artifacts, as a W&B run of its own.

    `folder`: where W&B's files go, to <folder>/wandb. Does nothing on other ranks than the first,
    or where `settings.enabled` is false.
    """
    if not settings.enabled or not distributed.is_first_rank():
        return
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    logger = RunLogger(settings, folder, labels)
    with logged_run(logger, config):
        values: dict[str, Any] = dict(content.numbers)
        for name, (columns, rows) in content.tables.items():
            values[name] = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        logger.experiment.log(values)
        logger.log_pieces(content.inputs, content.outputs)


def log_audit(
    settings: Wandb, folder: Path, config: Mapping[str, Any], content: Mapping[str, Any]
) -> None:
    """Log the results of an audit, on request, as a W&B run in the group of the audited run.

    Args:
        settings: section `logger.wandb`.
        folder: of the results: <run>/audit, or that of a model which is no run's.
        config: keys of the audit.
        content: of audit.json; each number of its attacks is logged as audit/<attack>/<key>/...
    """
    if not settings.enabled:
        return
    is_run = (folder.parent / "config.yaml").is_file()
    subject = folder.parent if is_run else folder
    group, name = wandb_content.group_of(subject), wandb_content.name_run(subject)
    labels = Labels(f"audit of {subject.name}", group, "audit", list(content["attacks"]))
    numbers = wandb_content.flatten_numbers(content["attacks"], "audit")
    model = wandb_content.model_piece(Path(content["models"]["unlearned"]))
    facts = {"results": hash_json(content)}
    results = Piece(f"audit-{name}", "audit", facts, folder / "audit.json")
    logged = wandb_content.Content(numbers, {}, [model], [results])
    log_numbers(settings, folder, labels, config, logged)
