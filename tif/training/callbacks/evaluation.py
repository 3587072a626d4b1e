"""Evaluates the policy before, during and after the training, and names failures seen there."""

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision

from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation.answer_tokens import locate_answers
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.identifiers.registration import get_kind
from tif.identifiers.span_comparison import count_units, score_against_gold
from tif.metrics import overall
from tif.metrics.choice import choosing_values
from tif.metrics.failures import (
    Failure,
    find_failures,
    find_identifier_failures,
    find_nothing_to_forget,
    measure_knowledge,
)
from tif.models.load import load_policy
from tif.models.references import ModelReference
from tif.probes.text_length import read_context
from tif.records import files as records
from tif.records.run_folder import add_times
from tif.records.types import AnswersBySet, Evaluation
from tif.reports.columns import list_main_columns, title_of
from tif.scoring.token_scores import ModelContext
from tif.training.callbacks.loggers import MetricsLogger
from tif.training.module import UnlearningModule
from tif.training.plan import Plan, wants_spans
from tif.training.prepare import place_model
from tif.utils import distributed
from tif.utils.files import write_text
from tif.utils.terminal import describe_seconds, literal, print_line


class EvaluationListener(Callback):
    """A callback that sees each evaluation, in every process, before its row is logged."""

    def on_evaluation(
        self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]
    ) -> None:
        """Look at the metrics of an evaluation; what is added to them goes into the row."""
        raise NotImplementedError


class PolicyEvaluation(Callback):
    """Evaluate the policy at epoch 0 and after epochs; log the metrics and write the records.

    Args:
        plan: the run's; its benchmarks are evaluated by the rules of section `eval`, and compared
            with the retain model's records; without them there is no forget quality.
        encoder: tokenises questions and answers.
        folder: records go to <folder>/<epoch>/.
        log: the run's rows.
    """

    def __init__(self, plan: Plan, encoder: Encoder, folder: Path, log: MetricsLogger) -> None:
        self.plan, self.settings, self.encoder = plan, plan.cfg.eval, encoder
        self.folder, self.retain, self.metrics_log = folder, plan.retain_records, log
        self._tokens: AnswersBySet | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Evaluate epoch 0, or the epoch of the checkpoint that a killed run goes on from."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Evaluate every `eval.every_n_epochs` epochs, and the last."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Evaluate the last epoch where a resumed run had nothing else left to do."""
        self._evaluate_once(trainer, pl_module, trainer.current_epoch)

    def _evaluate_once(self, trainer: L.Trainer, module: UnlearningModule, epoch: int) -> None:
        """Evaluate if the epoch is due and its row is not there yet."""
        every = self.settings.every_n_epochs
        is_due = epoch == self.plan.cfg.trainer.max_epochs or (every > 0 and epoch % every == 0)
        if epoch == 0:
            is_due = self.settings.before_training
        if is_due and epoch not in [row["epoch"] for row in self.metrics_log.evaluations()]:
            self._evaluate(trainer, module, epoch)

    def _evaluate(self, trainer: L.Trainer, module: UnlearningModule, epoch: int) -> None:
        start = time.perf_counter()
        lm_eval_scores: dict[str, tuple[float, float | None]] = {}
        with _run_as_trained(trainer), module.unlearned() as policy:
            original = self._original_model(trainer, module, policy, epoch)
            batching = module.settings.batching
            evaluations = self._evaluate_benchmarks(policy, epoch, batching, original)
            tasks = self.settings.lm_eval_tasks()
            if tasks:
                from tif.evaluation.lm_eval_tasks import run_tasks

                tokenizer = self.encoder.tokenizer
                lm_eval_scores = run_tasks(policy, tokenizer, tasks, self.settings.lm_eval)
            tokens = self._locate_tokens(read_context(policy.config))
        # All processes have all records, so the same numbers; the first one writes.
        values = self._compute_metrics(epoch, evaluations, tokens)
        values |= {name: score for name, (score, _) in lm_eval_scores.items()}
        if lm_eval_scores and trainer.is_global_zero:  # with their standard errors
            text = json.dumps(lm_eval_scores, indent=1) + "\n"
            write_text(self.folder / str(epoch) / "lm-eval.json", text)
        seconds = time.perf_counter() - start
        add_times(self.folder.parent, {"evaluation": seconds})
        _print_main_metrics(epoch, values, seconds)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationListener):
                callback.on_evaluation(trainer, module, epoch, values)
        # The row comes last: where it is, all that belongs to the evaluation is done.
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({"epoch": float(epoch), **values}, step=trainer.global_step)

    def _evaluate_benchmarks(
        self, policy: Any, epoch: int, batching: str, original: ModelContext | None
    ) -> dict[str, Evaluation]:
        """Return the evaluation on the run's benchmark, named "", and on the others.

        `original`: the model that KL compares with, on the run's benchmark.
        """
        run = str(self.folder.parent)
        evaluations = {}
        for name, benchmark in {"": self.plan.benchmark, **self.plan.other_benchmarks}.items():
            setup = EvaluationSetup(self.encoder, self.settings, batching, benchmark.tasks)
            compared_with = None if name else original
            evaluations[name] = evaluate(policy, benchmark.sets, setup, run, epoch, compared_with)
        return evaluations

    def _compute_metrics(
        self, epoch: int, evaluations: dict[str, Evaluation], tokens: AnswersBySet
    ) -> dict[str, float]:
        """Return the metrics of all benchmarks; the first process writes the records."""
        values: dict[str, float] = {}
        for name, evaluation in evaluations.items():
            metrics = overall.aggregate(evaluation)
            if not name:
                metrics = overall.aggregate(evaluation, self.retain, tokens, self._first_row())
            if distributed.is_first_rank():
                records.write_evaluation(self.folder / str(epoch) / name, evaluation, metrics)
            prefix = f"{name}/" if name else ""
            values |= {prefix + metric: v for metric, v in metrics.items() if v is not None}
        evaluation = evaluations[""]
        best = overall.get_best_metric(self.settings.best)
        values |= choosing_values(evaluation, self.retain, best, tokens)
        if epoch == 0:
            values |= measure_knowledge(evaluation, self.retain)
        return values

    def _first_row(self) -> dict[str, Any] | None:
        """Return the metrics before training; None where they are not there (yet)."""
        return next((row for row in self.metrics_log.evaluations() if row["epoch"] == 0), None)

    def _locate_tokens(self, context: int | None) -> AnswersBySet:
        """Return where the scored tokens stand in the answers; written once, for the report."""
        if self._tokens is None:
            benchmark = self.plan.benchmark
            setup = EvaluationSetup(self.encoder, self.settings, "", benchmark.tasks)
            answers = locate_answers(setup, benchmark.sets, benchmark.forget, context)
            has_file = (self.folder / records.TOKENS).exists()
            if distributed.is_first_rank() and not has_file:
                records.write_answer_tokens(self.folder, answers)
            self._tokens = answers
        return self._tokens

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
        cfg = self.plan.cfg
        is_empty = cfg.trainer.strategy == "fsdp2" and not distributed.is_first_rank()
        original = load_policy(
            cfg.model, self.encoder.tokenizer, cfg.run.seed, is_empty, trainer.strategy.root_device
        )
        place_model(original, trainer)
        original.eval()
        return lambda: nullcontext(original)


def _run_as_trained(trainer: L.Trainer) -> AbstractContextManager[Any]:
    """Return the context of the training's mixed precision; of other precisions, an empty one."""
    plugin = trainer.precision_plugin
    return plugin.forward_context() if isinstance(plugin, MixedPrecision) else nullcontext()


def _print_main_metrics(epoch: int, values: dict[str, float], seconds: float) -> None:
    measured = [name for name in list_main_columns() if name in values]
    parts = [f"{title_of(name)} {values[name]:.3g}" for name in measured]
    label = f"epoch {epoch}:" if epoch else "before:"
    duration = literal(f"({describe_seconds(seconds)})", "dim")
    print_line(label, ", ".join(parts), duration)


class Diagnosis(EvaluationListener):
    """Report the failures of metrics/failures.py, each with the number that shows it.

    Each failure is printed, and logged as `failure/<name>` in the evaluation's row. Those of
    `eval.stop_on` end the training after the epoch that showed them.

    Args:
        plan: the run's; the unwanted words of its forget samples are judged.
        log: the run's rows.
        gold: the same samples with gold spans, where the data has them.
    """

    def __init__(self, plan: Plan, log: MetricsLogger, gold: Sequence[Sample] | None) -> None:
        self.plan, self.metrics_log, self.gold = plan, log, gold
        self.stop_on = plan.cfg.eval.stop_on

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a resumed run again if such a failure had ended it."""
        for row in self.metrics_log.evaluations():
            if any(f"failure/{name}" in row for name in self.stop_on):
                trainer.should_stop = True

    def on_evaluation(
        self, trainer: L.Trainer, module: UnlearningModule, epoch: int, values: dict[str, float]
    ) -> None:
        """Compare with the run's first evaluation; at the first one, judge the unwanted words."""
        for failure in self._failures(epoch, values):
            values[f"failure/{failure.name}"] = failure.value
            self._report(trainer, failure)

    def _failures(self, epoch: int, values: dict[str, float]) -> list[Failure]:
        earlier = [row for row in self.metrics_log.evaluations() if row["epoch"] < epoch]
        if not earlier:
            unknown = find_nothing_to_forget(values) if epoch == 0 else []
            return unknown + self._identifier_failures()
        progress = epoch / self.plan.cfg.trainer.max_epochs
        return find_failures(earlier[0], values, progress)

    def _identifier_failures(self) -> list[Failure]:
        if not wants_spans(self.plan.cfg) or get_kind(self.plan.cfg.identifier.kind).is_control:
            return []
        words = count_units(self.plan.benchmark.forget)
        agreement = None
        if self.gold:
            gold_words = count_units(self.gold)
            agreement = score_against_gold(words.unwanted, gold_words.unwanted)["f1"]
        return find_identifier_failures(words.unwanted_share, agreement)

    def _report(self, trainer: L.Trainer, failure: Failure) -> None:
        name, line = literal(f"{failure.name.replace('_', '-')}:", "red"), failure.line
        if failure.name in self.stop_on:
            trainer.should_stop = True
            line += "; the training ends here (eval.stop_on)"
        if trainer.is_global_zero:
            print_line(name, line)
