"""Callbacks that write the policy to model/ (the last epoch) and model_best/ (the best)."""

import shutil
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from tif.data.encoding import Encoder
from tif.metrics import overall
from tif.models import export
from tif.records.run_folder import Seconds, add_times, measured, read_steps
from tif.reports.columns import describe_groups
from tif.reports.run_tables import model_card, steps_text
from tif.reports.summary import compute_best
from tif.training.callbacks.evaluation import EvaluationListener
from tif.training.callbacks.loggers import MetricsLogger
from tif.training.module import UnlearningModule
from tif.training.plan import Plan


class Export(Callback):
    """Write the policy to <folder>/model in Hugging Face format when the training is over.

    Args:
        folder: the run's.
        encoder: its tokenizer is written with the policy.
        merge: with LoRA, write one plain model; False = the adapters alone.
    """

    def __init__(self, folder: Path, encoder: Encoder, merge: bool = True) -> None:
        self.folder, self.encoder, self.merge = folder, encoder, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the model, also where a resumed run finds all epochs done. All processes call."""
        assert isinstance(pl_module, UnlearningModule)
        seconds: Seconds = {}
        with measured(seconds, "export"), pl_module.unlearned() as policy:
            card = model_card(self.folder) if trainer.is_global_zero else ""
            export.export_model(
                policy, self.encoder.tokenizer, self.folder / "model", card, self.merge
            )
        add_times(self.folder, seconds)
        trainer.strategy.barrier("export")


class KeepBest(EvaluationListener):
    """Write the policy to <folder>/model_best when an epoch is better than all before it.

    Earlier epochs are read from the run's rows, so that a resumed run decides as one that was never
    stopped. Epoch 0 is no candidate. Where the last epoch is the best, `Export` writes it alone.

    Args:
        plan: the run's; `eval.best` says what makes an epoch the best.
        log: the run's rows.
        folder, encoder: as for `Export`.
    """

    def __init__(self, plan: Plan, log: MetricsLogger, folder: Path, encoder: Encoder) -> None:
        self.cfg, self.metrics_log = plan.cfg, log
        self.folder, self.encoder = folder / "model_best", encoder
        self.metric = overall.get_best_metric(plan.cfg.eval.best)

    def on_evaluation(
        self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]
    ) -> None:
        """Write the policy if this epoch is the best so far. All processes may hold shards."""
        rows = [row for row in self.metrics_log.evaluations() if row["epoch"] < epoch]
        if overall.find_best_epoch([*rows, {"epoch": epoch, **values}], self.metric) != epoch:
            return
        if epoch == self.cfg.trainer.max_epochs or trainer.should_stop:
            if trainer.is_global_zero:
                shutil.rmtree(self.folder, ignore_errors=True)
            return
        with module.unlearned() as policy:
            card = self._card(epoch) if trainer.is_global_zero else ""
            merge = self.cfg.model.lora.merge
            export.export_model(policy, self.encoder.tokenizer, self.folder, card, merge)

    def _card(self, epoch: int) -> str:
        best = compute_best(self.folder.parent, epoch)
        lines = ["---", "library_name: transformers", "tags: [machine-unlearning]", "---"]
        lines += [f"# {self.folder.parent.name}, epoch {epoch}", ""]
        steps = steps_text(read_steps(self.folder.parent))
        lines += [f"The epoch with the best `{self.metric}` on one half of the questions; the "
                  f"numbers are of the other half: {describe_groups(best.groups) or 'none'}. "
                  "`../model` is the run's last epoch, its result.", ""]  # fmt: skip
        lines += [f"Optimizer steps up to this epoch: {steps} for all epochs.", ""]
        lines += ["| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in best.row.items()]
        return "\n".join(lines) + "\n"
