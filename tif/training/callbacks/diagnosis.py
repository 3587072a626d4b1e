"""What is done with an evaluation while a run trains: failures named as they appear, the best epoch kept."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

from tif.config.schema import Config
from tif.data.samples import Sample
from tif.identifiers import compare
from tif.metrics import overall
from tif.metrics.failures import Failure, failures, identifier_failures
from tif.models import export
from tif.training.callbacks.evaluation import OnEvaluation, earlier_evaluations
from tif.utils import terminal

if TYPE_CHECKING:
    from tif.data.encoding import Encoder
    from tif.training.module import UnlearningModule

MEANT = ("all", "none", "random")  # identifiers that are controls: their share is what was asked for


class Diagnosis(OnEvaluation):
    """Names the failure signatures of metrics/failures.py, with the number that shows each.

    Each is printed, and logged as `failure/<name>` in the evaluation's row. Those of `eval.stop_on` end the training
    after the epoch that showed them.

    Args:
        cfg: sections `eval`, `identifier` and `trainer` are read.
        forget: the forget samples with their unwanted words; None = the run tells no words apart.
        gold: the same samples with gold spans, where the data has them.
    """

    def __init__(self, cfg: Config, forget: Sequence[Sample] | None, gold: Sequence[Sample] | None) -> None:
        self.stop_on, self.max_epochs = cfg.eval.stop_on, cfg.trainer.max_epochs
        self.forget = None if cfg.identifier.kind in MEANT else forget
        self.gold = gold

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run that such a failure had ended ends here again."""
        rows = earlier_evaluations(trainer)
        trainer.should_stop = any(f"failure/{name}" in row for name in self.stop_on for row in rows)

    def on_evaluation(
        self, trainer: L.Trainer, module: "UnlearningModule", epoch: int, values: dict[str, float]
    ) -> None:
        """Compare with the run's first evaluation; the words are looked at with that one."""
        rows = [row for row in earlier_evaluations(trainer) if row["epoch"] < epoch]
        shown = failures(rows[0], values, epoch / self.max_epochs) if rows else self._of_words()
        for failure in shown:
            values[f"failure/{failure.name}"] = failure.value
            self._tell(trainer, failure)

    def _of_words(self) -> list[Failure]:
        if self.forget is None:
            return []
        ours, gold = (_labels(samples) for samples in (self.forget, self.gold or ()))
        flat = [label for own in ours.labels.values() for label in own]
        agreement = compare.against(ours, gold)["f1"] if gold.labels else None
        return identifier_failures(sum(flat) / max(len(flat), 1), agreement)

    def _tell(self, trainer: L.Trainer, failure: Failure) -> None:
        end = ""
        if failure.name in self.stop_on:
            trainer.should_stop, end = True, "; the training ends here (eval.stop_on)"
        if trainer.is_global_zero:
            name = failure.name.replace("_", "-")
            terminal.console.print(f"[red]{name}[/]: {failure.line}{end}", soft_wrap=True)


def _labels(samples: Sequence[Sample]) -> compare.Counted:
    return compare.Counted("", False, {s.id: compare.labels(s, compare.word_units) for s in samples})


class KeepBest(OnEvaluation):
    """Writes the policy to <run>/model_best when an epoch is better than all before it, by `eval.best`.

    Which were before is read from the run's rows, so that a resumed run goes on as if it had never stopped. The start
    (epoch 0) is no candidate. The last epoch is Export's; where it is the best, there is no model_best.

    Args:
        cfg: section `eval` is read.
        folder: the run's.
        encoder: its tokenizer goes with the model.
    """

    def __init__(self, cfg: Config, folder: Path, encoder: "Encoder") -> None:
        self.key, self.merge = overall.key(cfg.eval.best), cfg.model.lora.merge
        self.folder, self.encoder, self.last = folder / "model_best", encoder, cfg.trainer.max_epochs

    def on_evaluation(
        self, trainer: L.Trainer, module: "UnlearningModule", epoch: int, values: dict[str, float]
    ) -> None:
        """All processes export together, since they may hold shards."""
        rows = [row for row in earlier_evaluations(trainer) if row["epoch"] < epoch]
        if overall.best_epoch([*rows, {"epoch": epoch, **values}], self.key) != epoch:
            return
        if epoch == self.last or trainer.should_stop:
            if trainer.is_global_zero:
                shutil.rmtree(self.folder, ignore_errors=True)
            return
        with module.unlearned() as policy:
            text = card(self.folder, self.key, epoch, values)
            export.save(policy, self.encoder.tokenizer, self.folder, text, self.merge)


def card(folder: Path, key: str, epoch: int, values: Mapping[str, float]) -> str:
    """The kept model's README.md."""
    lines = ["---", "library_name: transformers", "tags: [machine-unlearning]", "---"]
    lines += [f"# {folder.parent.name}, epoch {epoch}", "", f"The run's best epoch by `{key}`; `../model` is its last."]
    lines += ["", "| metric | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in values.items())]
    return "\n".join(lines) + "\n"
