"""When to evaluate, what to log and what to write while `lightning.Trainer` trains."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only

from tif.config.schema import Config
from tif.data.benchmarks import tasks_of
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark
from tif.evaluation import evaluate as evaluation
from tif.metrics import overall
from tif.models import fsdp as sharding
from tif.models.export import save
from tif.models.load import load_policy
from tif.models.references import CachedReference
from tif.records import files as records
from tif.records import metrics_log
from tif.training.module import UnlearningModule
from tif.utils import distributed, terminal
from tif.utils.files import write_text


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
        """Append one row; those without `train/loss` are evaluations."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        metrics_log.append_row(self.path, int(metrics["epoch"]), step, values)

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows."""
        return metrics_log.read_rows(self.path)

    @rank_zero_only
    def keep_until(self, steps: int) -> None:
        """Drop the rows that came after so many optimizer steps (-1: all), and a last one that was cut."""
        metrics_log.drop_rows_after(self.path, steps)


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
        self._context = terminal.progress_bar(self.title, total)
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
        further: benchmarks that are evaluated besides, by name.
    """

    def __init__(
        self,
        cfg: Config,
        benchmark: Benchmark,
        encoder: Encoder,
        folder: Path,
        retain: records.Evaluation | None,
        further: Mapping[str, Benchmark] | None = None,
    ) -> None:
        self.further = dict(further or {})
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
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def _evaluate_once(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        """Evaluate if this epoch is one to evaluate and its row is not there yet."""
        every = self.cfg.every_n_epochs
        due = epoch == self.max_epochs or bool(every and epoch % every == 0) if epoch else self.cfg.before_training

        def is_done() -> bool:
            rows = [row for log in trainer.loggers if isinstance(log, JsonlLogger) for row in log.rows()]
            return any(row["epoch"] == epoch and metrics_log.is_evaluation_row(row) for row in rows)

        if due and not distributed.run_on_first_rank(is_done):
            self._evaluate(trainer, pl_module, epoch)

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> None:
        assert isinstance(pl_module, UnlearningModule)
        start = time.perf_counter()
        plugin = trainer.precision_plugin
        mixed = plugin.forward_context() if isinstance(plugin, MixedPrecision) else nullcontext()
        with mixed, pl_module.unlearned() as policy:
            first = self._original(trainer, pl_module, policy, epoch)
            found = self._records(policy, self.benchmark, pl_module.batching, epoch, first)
            # All processes have all records, so the same numbers; one of them writes.
            values = overall.aggregate(found, self.retain)
            known = {name: value for name, value in values.items() if value is not None}
            for name, benchmark in self.further.items():
                other = self._records(policy, benchmark, pl_module.batching, epoch)
                own = overall.aggregate(other)
                known |= {f"{name}/{metric}": value for metric, value in own.items() if value is not None}
                if trainer.is_global_zero:
                    records.write(self.folder / str(epoch) / name, other, own)
            scores: dict[str, Any] = {}
            if tasks := tasks_of(self.cfg):
                from tif.evaluation import lm_eval_tasks as ability

                scores = ability.run(policy, self.encoder.tokenizer, tasks, self.cfg.lm_eval)
                known |= {name: value for name, (value, _) in scores.items()}
        if trainer.is_global_zero:
            records.write(self.folder / str(epoch), found, values)
            if scores:  # with their standard errors
                write_text(self.folder / str(epoch) / "lm-eval.json", json.dumps(scores, indent=1) + "\n")
            shown = "  ".join(f"{name} {known[name]:.3g}" for name in HEADLINE if name in known)
            seconds = f"[dim]({time.perf_counter() - start:.0f} s)[/]"
            terminal.console.print(f"epoch {epoch}  {shown}  {seconds}", soft_wrap=True)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, OnEvaluation):
                callback.on_evaluation(trainer, pl_module, epoch, known)
        if trainer.is_global_zero:  # the row comes last: where it is, all that belongs to it is done
            for logger in trainer.loggers:
                logger.log_metrics({"epoch": float(epoch), **known}, step=trainer.global_step)

    def _records(
        self, policy: Any, benchmark: Benchmark, batching: str, epoch: int, original: Any = None
    ) -> records.Evaluation:
        name = str(self.folder.parent)
        return evaluation.evaluate(
            policy, self.encoder, benchmark.sets, self.cfg, batching, name, epoch, original, benchmark.tasks
        )

    def _original(self, trainer: L.Trainer, module: UnlearningModule, policy: Any, epoch: int) -> Any:
        """What KL compares with: itself before training, then the reference where that is a model, or loaded anew."""
        if not self.cfg.kl or epoch == 0:
            return policy if self.cfg.kl else None
        reference: Any = module.reference
        if reference is not None and not isinstance(reference, CachedReference):
            return reference.on(policy.device)
        cfg, strategy = module.cfg, cast(Any, trainer.strategy)
        in_shards = isinstance(strategy, ModelParallelStrategy)
        empty = in_shards and not distributed.is_first_rank()
        original = load_policy(cfg.model, self.encoder.tokenizer, cfg.run.seed, empty)
        if in_shards:
            sharding.shard(original, strategy.device_mesh["data_parallel"], policy.device, cfg.trainer.precision)
        return original.to(policy.device).eval()


HEADLINE = (
    "forget/quality",
    "utility/model",
    "forget/probability",
    "forget/rougeL",
    "retain/probability",
    "muse/verbmem_forget",
    "muse/knowmem_forget",
    "muse/knowmem_retain",
    "muse/privleak",
)


class OnEvaluation(Callback):
    """A callback that is told of each evaluation, in every process, before its row is written."""

    def on_evaluation(self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]) -> None:
        """`values`: all metrics of the row, the same in all processes; what is added here goes into the row."""
        raise NotImplementedError


def earlier_evaluations(trainer: L.Trainer) -> list[dict[str, Any]]:
    """The run's rows of evaluations so far; all processes call, and get those that the first one reads."""
    rows = [row for log in trainer.loggers if isinstance(log, JsonlLogger) for row in log.rows()]
    evaluations = [row for row in rows if metrics_log.is_evaluation_row(row)]
    evaluations_of_first_rank: list[dict[str, Any]] = trainer.strategy.broadcast(evaluations)
    return evaluations_of_first_rank


class Export(Callback):
    """Writes the policy to <run>/model in Hugging Face format when training is over."""

    def __init__(self, folder: Path, encoder: Encoder, card: Callable[[], str], merge: bool = True) -> None:
        self.folder, self.encoder, self.card, self.merge = folder, encoder, card, merge

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Once, also where a resumed run finds all epochs done. All processes call, since they may hold shards."""
        assert isinstance(pl_module, UnlearningModule)
        with pl_module.unlearned() as policy:
            card = self.card() if trainer.is_global_zero else ""
            save(policy, self.encoder.tokenizer, self.folder / "model", card, self.merge)
        trainer.strategy.barrier("export")
