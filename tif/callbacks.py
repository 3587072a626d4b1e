"""When to evaluate, what to log and what to write while `lightning.Trainer` trains."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tif import distributed, evaluation, records, terminal
from tif.data.encode import Encoder
from tif.data.samples import Benchmark
from tif.files import write_text
from tif.metrics import tofu
from tif.module import UnlearningModule
from tif.schema import Config


class JsonlLogger(Logger):
    """Appends a row {"epoch", "step", metric: value, ...} to metrics.jsonl for each call, at once.

    A row of a run that was killed is whole or missing. On a resume the rows after the checkpoint are dropped first,
    since they will be made again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row."""
        row: dict[str, Any] = {"epoch": int(metrics["epoch"]), "step": step}
        row |= {name: value for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    @rank_zero_only
    def keep_until(self, steps: int) -> None:
        """Drop the rows that came after so many optimizer steps (-1: all), and a last one that was cut."""
        if self.path.exists():
            # A step's row has its number, counted from 0; an evaluation's row the number of steps before it.
            kept = [row for row in self.rows() if row["step"] < steps + ("train/loss" not in row)]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows."""
        lines = self.path.read_text(encoding="utf-8").splitlines(True) if self.path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


class TrainingBar(ProgressBar):
    """One bar over all steps, with the loss and its parts."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def disable(self) -> None:
        """Lightning asks for it in all processes but the first; there `terminal.silence` has done it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
        self._context = terminal.bar(self.title, total)
        self._bar = self._context.__enter__()
        self._bar.advance(trainer.fit_loop.total_batch_idx + 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance, and show the last step's loss."""
        assert isinstance(pl_module, UnlearningModule)
        values = {k.removeprefix("train/"): v.item() for k, v in pl_module.step_values.items()}
        note = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._bar.advance(note=f"epoch {trainer.current_epoch + 1}  {note}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._context.__exit__(None, None, None)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error stands alone."""
        if hasattr(self, "_context"):
            self.on_train_end(trainer, pl_module)


class TofuMetrics(Callback):
    """Evaluates the policy before training (epoch 0) and after epochs, logs the metrics and writes the records.

    Args:
        cfg: section `eval` is read.
        benchmark, encoder: what is evaluated, and how it is tokenised.
        folder: records go to <folder>/<epoch>/.
        retain: the retain model's evaluation; None = no forget quality.
    """

    def __init__(
        self,
        cfg: Config,
        benchmark: Benchmark,
        encoder: Encoder,
        folder: Path,
        retain: records.Evaluation | None,
    ) -> None:
        self.cfg, self.benchmark, self.encoder, self.folder, self.retain = cfg.eval, benchmark, encoder, folder, retain
        self.max_epochs = cfg.trainer.max_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Epoch 0; or that of a resumed run's checkpoint, where the run was killed before it was evaluated."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every `every_n_epochs`, and the last."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last, where a resumed run had nothing else left to do."""
        self._evaluate_once(trainer, pl_module, self.max_epochs)

    def _evaluate_once(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        """Evaluate if this epoch is one to evaluate and its row is not there yet."""
        every = self.cfg.every_n_epochs
        due = epoch == self.max_epochs or bool(every and epoch % every == 0) if epoch else self.cfg.before_training

        def is_done() -> bool:
            rows = [row for log in trainer.loggers if isinstance(log, JsonlLogger) for row in log.rows()]
            return any(row["epoch"] == epoch and "train/loss" not in row for row in rows)

        if due and not distributed.once(is_done):
            self._evaluate(trainer, pl_module, epoch)

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        assert isinstance(pl_module, UnlearningModule)
        start = time.perf_counter()
        with pl_module.unlearned() as policy:
            found = evaluation.evaluate(
                policy,
                self.encoder,
                self.benchmark.sets,
                self.cfg,
                pl_module.batching,
                name=str(self.folder.parent),
                epoch=epoch,
            )
        # Every process evaluates all of it: the same numbers everywhere, and one of them writes.
        values = tofu.aggregate(found, self.retain)
        if not trainer.is_global_zero:
            return
        records.write(self.folder / str(epoch), found, values)
        known = {name: value for name, value in values.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": float(epoch), **known}, step=trainer.global_step)
        shown = "  ".join(f"{name} {known[name]:.3g}" for name in HEADLINE if name in known)
        terminal.console.print(f"epoch {epoch}  {shown}  [dim]({time.perf_counter() - start:.0f} s)[/]", soft_wrap=True)


HEADLINE = ("forget/quality", "utility/model", "forget/probability", "forget/rougeL", "retain/probability")


class Export(Callback):
    """Writes the policy to <run>/model in Hugging Face format when training is over."""

    def __init__(self, folder: Path, encoder: Encoder, card: Callable[[], str], merge: bool = True) -> None:
        self.folder, self.encoder, self.card, self.merge = folder, encoder, card, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Once, also where a resumed run finds all epochs done. All processes call, since they may hold shards."""
        from tif.models import export

        assert isinstance(pl_module, UnlearningModule)
        with pl_module.unlearned() as policy:
            card = self.card() if trainer.is_global_zero else ""
            export(policy, self.encoder.tokenizer, self.folder / "model", card, self.merge)
        trainer.strategy.barrier("export")
