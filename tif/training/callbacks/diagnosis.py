"""Names the failures that the evaluations of a run show. Added by `train.make_callbacks`."""

from collections.abc import Sequence

import lightning as L

from tif.data.samples import Sample
from tif.identifiers import compare
from tif.identifiers.kinds import get_kind
from tif.metrics.failures import (
    Failure,
    find_failures,
    find_identifier_failures,
    find_nothing_to_forget,
)
from tif.training.callbacks.evaluation import EvaluationListener
from tif.training.callbacks.loggers import MetricsLogger
from tif.training.module import UnlearningModule
from tif.training.plan import Plan, wants_spans
from tif.utils.terminal import literal, print_line


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
        words = compare.count_units(self.plan.benchmark.forget)
        agreement = None
        if self.gold:
            gold_words = compare.count_units(self.gold)
            agreement = compare.score_against_gold(words.unwanted, gold_words.unwanted)["f1"]
        return find_identifier_failures(words.unwanted_share, agreement)

    def _report(self, trainer: L.Trainer, failure: Failure) -> None:
        name, line = literal(f"{failure.name.replace('_', '-')}:", "red"), failure.line
        if failure.name in self.stop_on:
            trainer.should_stop = True
            line += "; the training ends here (eval.stop_on)"
        if trainer.is_global_zero:
            print_line(name, line)
