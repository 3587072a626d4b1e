"""Keeps the policy of a run's best epoch in <run>/model_best. Added by `run.make_callbacks`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import lightning as L

from tif.data.encoding import Encoder
from tif.metrics import overall
from tif.models import export
from tif.training.callbacks.evaluation import EvaluationListener
from tif.training.callbacks.metrics_logger import MetricsLogger
from tif.training.module import UnlearningModule


class KeepBest(EvaluationListener):
    """Write the policy to <run>/model_best when an epoch is better than all before it.

    Earlier epochs are read from the run's rows, so that a resumed run goes on as if it had never
    stopped. The start (epoch 0) is no candidate. `Export` writes the last epoch; where that is the
    best, there is no model_best.

    Args:
        log: the run's rows.
        best: `eval.best`, what makes an epoch the best.
        max_epochs: number of the last epoch.
        folder: the run's.
        encoder: its tokenizer is written with the policy.
        merge: as for `Export`.
    """

    def __init__(
        self,
        log: MetricsLogger,
        best: str,
        max_epochs: int,
        folder: Path,
        encoder: Encoder,
        merge: bool,
    ) -> None:
        self.metrics_log, self.metric, self.max_epochs = log, overall.get_best_metric(best), max_epochs
        self.folder, self.encoder, self.merge = folder / "model_best", encoder, merge

    def on_evaluation(
        self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]
    ) -> None:
        """Write the policy if this epoch is the best so far. All processes may hold shards."""
        rows = [row for row in self.metrics_log.evaluations() if row["epoch"] < epoch]
        if overall.find_best_epoch([*rows, {"epoch": epoch, **values}], self.metric) != epoch:
            return
        if epoch == self.max_epochs or trainer.should_stop:
            if trainer.is_global_zero:
                shutil.rmtree(self.folder, ignore_errors=True)
            return
        with module.unlearned() as policy:
            card = model_card(self.folder.parent.name, self.metric, epoch, values)
            export.export_model(policy, self.encoder.tokenizer, self.folder, card, self.merge)


def model_card(run: str, metric: str, epoch: int, values: Mapping[str, float]) -> str:
    """Return the README.md of the kept model: which epoch it is and what it scored."""
    lines = ["---", "library_name: transformers", "tags: [machine-unlearning]", "---"]
    lines += [f"# {run}, epoch {epoch}", ""]
    lines += [f"The run's best epoch by `{metric}`; `../model` is its last."]
    lines += ["", "| metric | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in values.items()]
    return "\n".join(lines) + "\n"
