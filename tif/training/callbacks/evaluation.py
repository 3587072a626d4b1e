"""Evaluates the policy before, during and after the training. Added by `run.make_callbacks`."""

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy

from tif.config.schema import Eval, Model
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.metrics import overall
from tif.models import fsdp as sharding
from tif.models.load import load_policy
from tif.models.references import ModelReference
from tif.records import files as records
from tif.scoring.token_scores import ModelContext
from tif.training.callbacks.metrics_logger import MetricsLogger
from tif.training.module import UnlearningModule
from tif.utils import distributed
from tif.utils.files import write_text
from tif.utils.terminal import console

# Metrics of the line that an evaluation prints, as far as the benchmark has them.
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


@dataclasses.dataclass(frozen=True)
class EvaluationInputs:
    """What the evaluations of a run work with.

    Attributes:
        settings: section `eval`.
        benchmark: the run's own.
        other_benchmarks: those of `eval.benchmarks`, by name.
        encoder: tokenises questions and answers.
        retain_records: the retain model's evaluation; None = no forget quality.
        folder: records go to <folder>/<epoch>/.
    """

    settings: Eval
    benchmark: Benchmark
    other_benchmarks: Mapping[str, Benchmark]
    encoder: Encoder
    retain_records: records.Evaluation | None
    folder: Path


@dataclasses.dataclass(frozen=True)
class OriginalModel:
    """How the model that the run started from is loaded again, for the KL divergence from it."""

    model: Model
    seed: int
    precision: str


class EvaluationListener(Callback):
    """A callback that sees each evaluation, in every process, before its row is logged."""

    def on_evaluation(
        self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]
    ) -> None:
        """Look at an evaluation.

        Args:
            trainer: may be told to stop.
            module: holds the policy.
            epoch: of the evaluation; 0 = before training.
            values: all metrics of the row; what is added here goes into the row. The same in all
                processes.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Result:
    """One benchmark's records and metrics; `name` is empty for the run's own benchmark."""

    name: str
    records: records.Evaluation
    metrics: dict[str, float | None]


class PolicyEvaluation(Callback):
    """Evaluate the policy at epoch 0 and after epochs; log the metrics and write the records.

    Args:
        inputs: what is evaluated, and how.
        log: the run's rows.
        max_epochs: number of the last epoch.
        original: how to load the original model for KL.
    """

    def __init__(
        self, inputs: EvaluationInputs, log: MetricsLogger, max_epochs: int, original: OriginalModel
    ) -> None:
        self.inputs, self.settings = inputs, inputs.settings
        self.metrics_log, self.max_epochs, self.original = log, max_epochs, original

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate epoch 0, or the epoch of the checkpoint that a killed run goes on from."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate every `eval.every_n_epochs` epochs, and the last."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the last epoch where a resumed run had nothing else left to do."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def is_due(self, epoch: int) -> bool:
        """Return whether this epoch is one that is evaluated."""
        if epoch == 0:
            return self.settings.before_training
        every = self.settings.every_n_epochs
        return epoch == self.max_epochs or (every > 0 and epoch % every == 0)

    def _evaluate_once(
        self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int
    ) -> None:
        """Evaluate if the epoch is due and its row is not there yet."""
        if not self.is_due(epoch):
            return
        if epoch not in [row["epoch"] for row in self.metrics_log.evaluations()]:
            self._evaluate(trainer, cast(UnlearningModule, pl_module), epoch)

    def _evaluate(self, trainer: L.Trainer, module: UnlearningModule, epoch: int) -> None:
        start = time.perf_counter()
        with _trainer_precision(trainer), module.unlearned() as policy:
            original = self._original_model(trainer, module, policy, epoch)
            results = self._results(policy, module.settings.batching, epoch, original)
            lm_eval_scores = self._lm_eval_scores(policy)
        # All processes have all records, so the same numbers; the first one writes.
        values = _row_values(results, lm_eval_scores)
        if trainer.is_global_zero:
            self._write(epoch, results, lm_eval_scores)
            _print_headline(epoch, values, time.perf_counter() - start)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationListener):
                callback.on_evaluation(trainer, module, epoch, values)
        # The row comes last: where it is, all that belongs to the evaluation is done.
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({"epoch": float(epoch), **values}, step=trainer.global_step)

    def _results(self, policy: Any, batching: str, epoch: int, original: Any) -> list[_Result]:
        """Return the records and metrics of the run's own benchmark and of the others."""
        evaluated = self._records(policy, self.inputs.benchmark, batching, epoch, original)
        metrics = overall.aggregate(evaluated, self.inputs.retain_records)
        results = [_Result("", evaluated, metrics)]
        for name, benchmark in self.inputs.other_benchmarks.items():
            evaluated = self._records(policy, benchmark, batching, epoch)
            results.append(_Result(name, evaluated, overall.aggregate(evaluated)))
        return results

    def _records(
        self, policy: Any, benchmark: Benchmark, batching: str, epoch: int, original: Any = None
    ) -> records.Evaluation:
        setup = EvaluationSetup(self.inputs.encoder, self.settings, batching, benchmark.tasks)
        name = str(self.inputs.folder.parent)
        return evaluate(policy, benchmark.sets, setup, name, epoch, original)

    def _lm_eval_scores(self, policy: Any) -> dict[str, Any]:
        """Return (score, standard error) of each lm-eval task that `eval.benchmarks` names."""
        tasks = self.settings.lm_eval_tasks()
        if not tasks:
            return {}
        from tif.evaluation import lm_eval_tasks

        return lm_eval_tasks.run_tasks(
            policy, self.inputs.encoder.tokenizer, tasks, self.settings.lm_eval
        )

    def _write(
        self, epoch: int, results: list[_Result], lm_eval_scores: Mapping[str, Any]
    ) -> None:
        folder = self.inputs.folder / str(epoch)
        for result in results:
            records.write_evaluation(folder / result.name, result.records, result.metrics)
        if lm_eval_scores:
            write_text(folder / "lm-eval.json", json.dumps(lm_eval_scores, indent=1) + "\n")

    def _original_model(
        self, trainer: L.Trainer, module: UnlearningModule, policy: Any, epoch: int
    ) -> ModelContext | None:
        """Return what opens the model that KL compares with; None where no KL is wanted.

        Before training that is the policy itself; later the reference, where it is a model, or the
        original model loaded again.
        """
        if not self.settings.kl:
            return None
        if epoch == 0:
            return lambda: nullcontext(policy)
        if isinstance(module.reference, ModelReference):
            return module.reference.use_model
        strategy = cast(Any, trainer.strategy)
        is_sharded = isinstance(strategy, ModelParallelStrategy)
        is_empty = is_sharded and not distributed.is_first_rank()
        original = load_policy(
            self.original.model, self.inputs.encoder.tokenizer, self.original.seed, is_empty
        )
        if is_sharded:
            mesh = strategy.device_mesh["data_parallel"]
            sharding.shard_model(original, mesh, policy.device, self.original.precision)
        original.to(policy.device).eval()
        return lambda: nullcontext(original)


def _trainer_precision(trainer: L.Trainer) -> AbstractContextManager[Any]:
    """Return a context in which forwards run in the trainer's mixed precision, if it has one."""
    plugin = trainer.precision_plugin
    return plugin.forward_context() if isinstance(plugin, MixedPrecision) else nullcontext()


def _row_values(results: list[_Result], lm_eval_scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are known, by their names in metrics.jsonl."""
    values: dict[str, float] = {}
    for result in results:
        prefix = f"{result.name}/" if result.name else ""
        for metric, value in result.metrics.items():
            if value is not None:
                values[prefix + metric] = value
    for name, (score, _) in lm_eval_scores.items():
        values[name] = score
    return values


def _print_headline(epoch: int, values: Mapping[str, float], seconds: float) -> None:
    shown = "  ".join(f"{name} {values[name]:.3g}" for name in HEADLINE if name in values)
    console.print(f"epoch {epoch}  {shown}  [dim]({seconds:.0f} s)[/]", soft_wrap=True)
