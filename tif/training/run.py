"""From a plan to a finished run folder; makes the stages that it needs first."""

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from rich.markup import escape

from tif import identifiers
from tif.config.errors import ConfigError
from tif.config.schema import Config
from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.identifiers import stored_spans
from tif.metrics import overall
from tif.models import load as models
from tif.records import files as records
from tif.reports.model_card import model_card
from tif.reports.plots import write_plots
from tif.reports.run_folder import RETAIN_FILE, summarize
from tif.reports.run_tables import show_run
from tif.training import checkpoints, run_folders
from tif.training.callbacks.diagnosis import Diagnosis
from tif.training.callbacks.evaluation import EvaluationInputs, OriginalModel, PolicyEvaluation
from tif.training.callbacks.export import Export
from tif.training.callbacks.keep_best import KeepBest
from tif.training.callbacks.metrics_logger import MetricsLogger
from tif.training.callbacks.progress_bar import TrainingBar
from tif.training.callbacks.wandb_log import wandb_log
from tif.training.checkpoints import Preempted
from tif.training.checks import trainer_arguments
from tif.training.plan import (
    Plan,
    config_text,
    identifier_of,
    identifier_stages,
    plan_reinforced_model,
    plan_run,
    plan_stage,
    wants_forget_quality,
    wants_spans,
    with_model,
)
from tif.training.prepare import prepare_training
from tif.training.retain_model import retain_model_records
from tif.utils import distributed, torch_state
from tif.utils.command_line import report_os_error
from tif.utils.files import write_text
from tif.utils.terminal import console, quiet_libraries, silence


def run(cfg: Config) -> Path:
    """Do all that a configuration asks for: stages, training, evaluation, export, report.

    Returns:
        The run's folder; that of the stage, where `cfg.stage` names one.

    Raises:
        ConfigError: Before any weights load, if the configuration or its files are wrong.
        FloatingPointError: If the loss is not finite; the run folder stays, without a summary.
        Preempted: If a signal asked the run to stop; the same call goes on.
    """
    quiet_libraries()
    plan = plan_stage(cfg, cfg.stage) if cfg.stage else plan_run(cfg)
    distributed.start(cfg.trainer.accelerator)
    if not distributed.is_first_rank():
        silence()
    return make_stage(plan) if cfg.stage else unlearn(plan)


def attempt(work: Callable[[], Any]) -> int:
    """Call `work`; print what stops it, as far as a user can act on it, as a line on stderr.

    Returns:
        0 = done, 1 = the loss was not finite or a file could not be read or written, 128 + N =
        stopped by signal N.

    Raises:
        ConfigError: Every command has its own exit code for it.
    """
    try:
        work()
    except ConfigError:
        raise
    except Preempted as error:
        _print_error(error)
        return 128 + error.signal
    except FloatingPointError as error:
        _print_error(error)
        return 1
    except Exception as error:
        next_step = "the same command goes on from the last checkpoint"
        return report_os_error(error, f"what was complete is there, and {next_step}")
    return 0


def _print_error(error: Exception) -> None:
    if distributed.is_first_rank():
        print(error, file=sys.stderr)


def make_stage(plan: Plan) -> Path:
    """Return the folder of a stage's finished run; train the stage unless it is there already.

    Safe when several processes call at once: one makes the stage, the others wait.
    """
    folder = plan.folder
    title = f"stage {plan.stage}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with distributed.locked_on_first_rank(f"{folder}.lock", title):
        if distributed.run_on_first_rank(lambda: run_folders.is_finished(folder)):
            console.print(f"{title}: {escape(str(folder))} [dim](made before)[/]", soft_wrap=True)
            return folder
        checkpoint = distributed.run_on_first_rank(lambda: _start_stage(plan, title))
        train(plan, folder, None, checkpoint)
        if distributed.is_first_rank():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


def _start_stage(plan: Plan, title: str) -> Path | None:
    """Prepare a stage's folder; return the checkpoint that it goes on from."""
    folder, text = plan.folder, config_text(plan.cfg)
    checkpoint = None
    if run_folders.has_config(folder, text):
        checkpoint = run_folders.find_newest_checkpoint(folder)
    _print_start(title, folder, checkpoint)
    run_folders.start_run(folder, text)
    return checkpoint


def unlearn(plan: Plan) -> Path:
    """Return the folder of a finished run; first find the unwanted words and make the stages."""
    cfg = plan.cfg
    stages: dict[str, Path] = {}
    if wants_spans(cfg) and cfg.identifier.kind in identifiers.COSTLY_KINDS:
        # First, with no more stages than needed: a missing server shows before hours of training.
        for name in identifier_stages(cfg):
            stages[name] = make_stage(plan.stages[name])
        forget = distributed.run_on_first_rank(lambda: _find_unwanted_words(plan, stages))
        plan = dataclasses.replace(plan, benchmark=dataclasses.replace(plan.benchmark, forget=forget))
    for name, stage in plan.stages.items():
        if name not in stages:
            stages[name] = make_stage(stage)
    retain = plan.retain_records
    if cfg.eval.retain_records in stages and wants_forget_quality(cfg):
        retain = retain_model_records(
            stages[cfg.eval.retain_records],
            plan.benchmark,
            cfg.model,
            cfg.data,
            cfg.eval,
            cfg.trainer,
        )
    if cfg.model.path in stages:
        plan = with_model(plan, stages[cfg.model.path] / "model")
    reinforced = None
    if cfg.loss.forget == "whp":
        reinforced = make_stage(plan_reinforced_model(plan))
    text = config_text(cfg)
    with distributed.entered_on_first_rank(run_folders.claim_run_folder(cfg.run, text)) as claim:
        folder, checkpoint = claim
        distributed.run_on_first_rank(lambda: _start_run(folder, text, checkpoint, retain))
        train(plan, folder, retain, checkpoint, reinforced)
        if distributed.is_first_rank():
            show_run(folder)
    return folder


def _find_unwanted_words(plan: Plan, stages: Mapping[str, Path]) -> tuple[Sample, ...]:
    """Return the forget samples with the spans of an identifier that asks models."""
    cfg = plan.cfg
    identifier = stored_spans.with_stage_models(identifier_of(cfg), stages)
    folder = Path(cfg.run.folder) / "spans"
    return stored_spans.identify_once(
        identifier, plan.benchmark.forget, cfg.data.template, folder
    )


def _start_run(
    folder: Path, text: str, checkpoint: Path | None, retain: records.Evaluation | None
) -> None:
    """Prepare the run's folder; the retain model's metrics go into it."""
    _print_start("run", folder, checkpoint)
    run_folders.start_run(folder, text)
    if retain:
        metrics = json.dumps(overall.aggregate(retain), indent=1)
        write_text(folder / RETAIN_FILE, metrics + "\n")


def _print_start(title: str, folder: Path, checkpoint: Path | None) -> None:
    from_where = f" [dim](goes on from {checkpoint.name})[/]" if checkpoint else ""
    console.print(f"{title}: {escape(str(folder))}{from_where}", soft_wrap=True)


def train(
    planned: Plan,
    folder: Path,
    retain: records.Evaluation | None,
    checkpoint: Path | None,
    reinforced: Path | None = None,
) -> None:
    """Train, with everything around it; `folder` is complete when its summary.json is there.

    Args:
        planned: the run.
        folder: of the run.
        retain: the retain model's records.
        checkpoint: what the run goes on from.
        reinforced: run of the model that forget=whp compares with.
    """
    cfg = planned.cfg
    with torch_state.seeded(cfg.run.seed), contextlib.ExitStack() as stack:
        texts = list_tokenizer_texts(planned.benchmark, cfg.data.template)
        encoder = Encoder(models.load_tokenizer(cfg.model, texts), cfg.data.template, cfg.data.overlap)
        jsonl = MetricsLogger(folder / "metrics.jsonl")
        jsonl.drop_rows_after(checkpoints.steps_done(checkpoint) if checkpoint else -1)
        wandb = stack.enter_context(wandb_log(cfg.logger.wandb, folder, dataclasses.asdict(cfg)))
        trainer = make_trainer(planned, folder, [jsonl, *wandb], encoder, retain)
        module, data = prepare_training(planned, encoder, trainer, reinforced)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if distributed.is_first_rank():
        if cfg.eval.enabled:
            write_plots(folder)
        write_text(folder / run_folders.DONE, json.dumps(summarize(folder, retain), indent=1) + "\n")
    distributed.barrier()


def make_trainer(
    planned: Plan, folder: Path, loggers: list[Logger], encoder: Encoder, retain: records.Evaluation | None
) -> L.Trainer:
    """Return the `lightning.Trainer` of section `trainer`, with tif's callbacks."""
    cfg = planned.cfg
    log = next(logger for logger in loggers if isinstance(logger, MetricsLogger))
    callbacks = make_callbacks(planned, folder, log, encoder, retain)
    return L.Trainer(
        **trainer_arguments(cfg.trainer),
        plugins=[checkpoints.DirectCheckpointIO(), *distributed.lightning_plugins()]
        if cfg.trainer.strategy != "fsdp2"
        else distributed.lightning_plugins(),
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module's own sampler knows ranks
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def make_callbacks(
    plan: Plan, folder: Path, log: MetricsLogger, encoder: Encoder, retain: records.Evaluation | None
) -> list[Callback]:
    """Return what a run does beside its steps, in the order in which Lightning calls it."""
    cfg, benchmark = plan.cfg, plan.benchmark
    unlearning = cfg.data.train == "forget"
    epochs, merge = cfg.trainer.max_epochs, cfg.model.lora.merge
    # Checkpoints first: an epoch's checkpoint is written before the epoch is evaluated.
    callbacks: list[Callback] = [
        checkpoints.Checkpoints(folder / "checkpoints", cfg.run.keep_checkpoints, cfg.run.checkpoint_every_n_steps),
        checkpoints.StepSeeds(cfg.run.seed),
        TrainingBar("unlearning" if unlearning else f"finetuning on the {cfg.data.train} set"),
    ]
    if cfg.eval.enabled:
        inputs = EvaluationInputs(cfg.eval, benchmark, plan.other_benchmarks, encoder, retain, folder / "eval")
        original = OriginalModel(cfg.model, cfg.run.seed, cfg.trainer.precision)
        callbacks.append(PolicyEvaluation(inputs, log, epochs, original))
        if unlearning:
            has_words = wants_spans(cfg)
            has_gold = has_words and cfg.data.benchmark == "fictitious"
            forget = benchmark.forget if has_words else None
            gold = read_benchmark(cfg.data).forget if has_gold else None
            callbacks.append(Diagnosis(log, cfg.eval.stop_on, epochs, cfg.identifier.kind, forget, gold))
        if cfg.run.export and cfg.eval.best != "none":
            callbacks.append(KeepBest(log, cfg.eval.best, epochs, folder, encoder, merge))
    if cfg.run.export:
        callbacks.append(Export(folder, encoder, lambda: model_card(folder), merge))
    return callbacks
