"""`Config`, the configuration of `tif fit`: its sections, and what must fit between them.

Each section is a dataclass in the file of its name; `tif.config.keys.key` attaches to each key the
sentence, choices and bounds that are shown and checked. All sections can be imported from here.
"""

import dataclasses
from typing import Any

from tif.config.data import Chat, Data, Fictitious, TofuSources
from tif.config.evaluation import Eval, EvalRules, LmEval, MaxSamples, make_rules
from tif.config.identifier import Identifier, make_identifier
from tif.config.keys import key
from tif.config.loss import Loss, make_loss
from tif.config.model import Lora, Model
from tif.config.run import Logger, RunKeys, Wandb
from tif.config.trainer import Optimizer, TrainerKeys

__all__ = [
    "Chat", "Config", "Data", "Eval", "EvalRules", "Fictitious", "Identifier", "LmEval", "Logger",
    "Lora", "Loss", "MaxSamples", "Model", "Optimizer", "RunKeys", "TrainerKeys", "Wandb", "key",
]  # fmt: skip


@dataclasses.dataclass
class Config:
    """One experiment."""

    run: RunKeys = dataclasses.field(default_factory=RunKeys)
    data: Data = dataclasses.field(default_factory=Data)
    identifier: Identifier = dataclasses.field(default_factory=make_identifier)
    model: Model = dataclasses.field(default_factory=Model)
    loss: Loss = dataclasses.field(default_factory=make_loss)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    trainer: TrainerKeys = dataclasses.field(default_factory=TrainerKeys)
    eval: Eval = dataclasses.field(default_factory=lambda: make_rules(Eval))
    logger: Logger = dataclasses.field(default_factory=Logger)
    tofu: TofuSources = dataclasses.field(default_factory=TofuSources)
    stages: dict[str, Any] = key({}, "runs that model.path and eval.retain_records may name "
        "(target, retain): each this config with its own keys")
    stage: str | None = key(None, "make this stage only")

    def find_problems(self) -> list[str]:
        """Return the problems between keys that no single key shows, one line each."""
        is_unlearning = self.data.train == "forget"
        problems = self.data.find_problems()
        if is_unlearning:
            problems += self.identifier.find_problems(self.model)
            if self.identifier.is_dry_run():
                problems.append(f"identifier.{self.identifier.kind}.dry_run: sends nothing, so "
                    "nothing can be unlearned; want tif identify with the same keys")
        problems += [f"loss.{problem}" for problem in self.loss.find_problems(self.data.train)]
        problems += self._strategy_problems(is_unlearning)
        problems += self.model.find_problems(
            self.trainer.strategy, self.trainer.precision, self._is_negated())
        problems += self.run.find_problems()
        problems += self.logger.find_problems()
        problems += self.eval.find_problems()
        wants_quality = is_unlearning and self.eval.enabled and self.eval.forget_quality
        if wants_quality and not (self.eval.retain_records or self.eval.retain_model):
            name = "PrivLeak" if self.data.reader.is_muse else "forget quality"
            problems.append(f"eval.retain_records: {name} needs the "
                "retain model's records, got null; give a run's eval folder or a stage that makes "
                "them, eval.retain_model=MODEL, or eval.forget_quality=false")
        if is_unlearning:
            problems += self._audit_problems(wants_quality)
        if self.loss.is_whp_at_inference(self.data.train) and self.run.export:
            problems.append("run.export: loss.whp needs two models; want false, or forget=whp")
        if not self.model.path and not self.model.init:
            problems.append("model.path: want model=NAME (a preset), a Hugging Face folder or hub "
                "name, or model.init; got null")
        return problems

    def _audit_problems(self, wants_quality: bool) -> list[str]:
        """Return what eval.audit and eval.best=retain_distance lack, one line each."""
        problems = []
        has_questions = not self.data.reader.is_muse
        if self.eval.best == "retain_distance" and not (wants_quality and has_questions):
            problems.append("eval.best: retain_distance compares answers to questions with the "
                "retain model's; want score, or eval.forget_quality=true on such a benchmark")
        if not self.eval.audit:
            return problems
        if not self.run.export or not self.model.lora.merge:
            problems.append("eval.audit: attacks the exported model; want run.export=true and "
                "model.lora.merge=true")
        has_model = self.eval.retain_records in self.stages or self.eval.retain_model
        if not has_model or not has_questions:
            problems.append("eval.audit: needs questions and the retain model; want "
                "eval.retain_model, eval.retain_records to name a stage, or tif audit after the "
                "run")
        return problems

    def _is_negated(self) -> bool:
        """Return whether the run evaluates and exports the negated weights of loss.task_vector."""
        return self.data.train == "forget" and self.loss.task_vector is not None

    def _strategy_problems(self, is_unlearning: bool) -> list[str]:
        """Return what cannot be done with the shards of trainer.strategy=fsdp2, one line each."""
        problems = self.trainer.find_problems()
        if self.trainer.strategy != "fsdp2":
            return problems
        if is_unlearning and self.loss.whp is not None:
            problems.append("trainer.strategy: loss.whp cannot be in shards; want ddp or auto")
        if self.data.batching == "packed":
            reason = "packed rows are not as many in all processes, as trainer.strategy=fsdp2 needs"
            problems.append(f"data.batching: packed, but {reason}; want auto or padded")
        if self._is_negated():
            problems.append("trainer.strategy: want ddp or auto for loss.task_vector")
        if self.optimizer.name not in ("auto", "adamw", "adamw_bf16"):
            name = self.optimizer.name
            problems.append(f"optimizer.name: {name} cannot use fsdp2's shards; want auto")
        return problems
