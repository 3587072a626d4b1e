"""From a plan to a finished run folder; makes the stages that it needs first."""

import contextlib
import dataclasses
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
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
from tif.data.samples import fingerprint
from tif.metrics import overall
from tif.models import load as models
from tif.records import files as records
from tif.reports.model_card import model_card
from tif.reports.plots import write_plots
from tif.reports.run_folder import RETAIN_FILE, summarize
from tif.reports.run_tables import show_run
from tif.scoring.token_scores import best_batching
from tif.training import checkpoints as resuming
from tif.training import prepare as preparing
from tif.training import run_folders as runs
from tif.training import spans
from tif.training.callbacks.diagnosis import Diagnosis
from tif.training.callbacks.evaluation import EvaluationInputs, OriginalModel, PolicyEvaluation
from tif.training.callbacks.export import Export
from tif.training.callbacks.keep_best import KeepBest
from tif.training.callbacks.metrics_logger import MetricsLogger
from tif.training.callbacks.progress_bar import TrainingBar
from tif.training.callbacks.wandb_log import wandb_log
from tif.training.checkpoints import Preempted
from tif.training.datamodule import UnlearningDataModule
from tif.training.module import UnlearningModule
from tif.training.plan import Plan, plan, stage_plan, trainer_keys, wants_forget_quality
from tif.training.retain_model import retain_model_records
from tif.utils import distributed, torch_state
from tif.utils.command_line import report_os_error
from tif.utils.files import locked, write_text
from tif.utils.terminal import console, silence


def run(cfg: Config) -> Path:
    """Do all that `cfg` asks for: stages, training, evaluation, export, report.

    Returns:
        The run's folder; of the stage, where `cfg.stage` names one.

    Raises:
        ConfigError: Before any weights load, if something is wrong with the configuration or its files.
        FloatingPointError: If the loss is not finite; the run folder stays for a look, without a summary.
        Preempted: If a signal asked the run to stop; the same call goes on.
    """
    quiet()
    found = stage_plan(cfg, cfg.stage) if cfg.stage else plan(cfg)
    distributed.start(cfg.trainer.accelerator)
    if not distributed.is_first_rank():
        silence()
    return make_stage(found, cfg.stage) if cfg.stage else unlearn(found)


def attempt(work: Callable[[], Any]) -> int:
    """Do it; what a user can do something about becomes a line on stderr and an exit code.

    Returns:
        0 done, 1 the loss was not finite or a file could not be read or written, 128 + N stopped by signal N.

    Raises:
        ConfigError: Which has an exit code in every command.
    """
    try:
        work()
    except Preempted as error:
        _say(str(error))
        return 128 + error.signal
    except FloatingPointError as error:
        _say(str(error))
        return 1
    except ConfigError:
        raise
    except Exception as error:
        next_step = "what was complete is there, and the same command goes on from the last checkpoint"
        return report_os_error(error, next_step)
    return 0


def _say(line: str) -> None:
    if distributed.is_first_rank():
        print(line, file=sys.stderr)


def make_stage(planned: Plan, name: str) -> Path:
    """Make a stage's run unless it is there already; safe when several processes ask for it at once."""
    cfg, benchmark = planned.cfg, planned.benchmark
    data = fingerprint((*benchmark.background, *benchmark.retain, *benchmark.forget))
    folder = runs.stage_folder(cfg, name, data)
    # Others read its model/, so that has to be whole.
    own = dataclasses.replace(cfg.run, name=folder.name, folder=str(folder.parent), export=True, resume="auto")
    model = dataclasses.replace(cfg.model, lora=dataclasses.replace(cfg.model.lora, merge=True))
    cfg = dataclasses.replace(cfg, run=own, model=model)
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[bool, Path | None]:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(f"{folder}.lock", f"stage {name}"))
            if (folder / runs.DONE).exists():
                console.print(f"stage {name}: {escape(str(folder))} [dim](made before)[/]", soft_wrap=True)
                return True, None
            found = runs.newest_checkpoint(folder) if runs.same_config(folder, cfg) else None
            console.print(f"stage {name}: {escape(str(folder))}{_from(found)}", soft_wrap=True)
            runs.write_start(folder, cfg)
            return False, found

        made, checkpoint = distributed.run_on_first_rank(begin)
        if not made:
            train(dataclasses.replace(planned, cfg=cfg), folder, None, checkpoint)
            if distributed.is_first_rank():
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        distributed.barrier()
    return folder


def unlearn(planned: Plan) -> Path:
    """The run itself, after its spans and stages."""
    cfg = planned.cfg
    made: dict[str, Path] = {}
    if spans.wanted(cfg) and cfg.identifier.kind in identifiers.COSTLY:
        # First of all, and with no more stages than it asks: a server that is not there shows before hours of training.
        made |= {name: make_stage(planned.stages[name], name) for name in dict.fromkeys(spans.stages(cfg))}
        forget = distributed.run_on_first_rank(lambda: spans.identified(cfg, planned.benchmark.forget, made))
        planned = dataclasses.replace(planned, benchmark=dataclasses.replace(planned.benchmark, forget=forget))
    made |= {name: make_stage(stage, name) for name, stage in planned.stages.items() if name not in made}
    retain = planned.retain
    if cfg.eval.retain_records in made and wants_forget_quality(cfg):
        stage = made[cfg.eval.retain_records]
        retain = retain_model_records(stage, planned.benchmark, cfg.model, cfg.data, cfg.eval, cfg.trainer)
    if cfg.model.path in made:
        model = dataclasses.replace(cfg.model, path=str(made[cfg.model.path] / "model"))
        planned = dataclasses.replace(planned, cfg=dataclasses.replace(cfg, model=model))
    reinforced = make_stage(preparing.reinforcing(planned), "reinforced") if cfg.loss.forget == "whp" else None
    with contextlib.ExitStack() as stack:

        def begin() -> tuple[Path, Path | None]:
            folder, checkpoint = stack.enter_context(runs.claimed(cfg))
            console.print(f"run: {escape(str(folder))}{_from(checkpoint)}", soft_wrap=True)
            runs.write_start(folder, cfg)
            if retain:
                write_text(folder / RETAIN_FILE, json.dumps(overall.aggregate(retain), indent=1) + "\n")
            return folder, checkpoint

        folder, checkpoint = distributed.run_on_first_rank(begin)
        train(planned, folder, retain, checkpoint, reinforced)
        if distributed.is_first_rank():
            show_run(folder)
    return folder


def train(
    planned: Plan,
    folder: Path,
    retain: records.Evaluation | None,
    checkpoint: Path | None,
    reinforced: Path | None = None,
) -> None:
    """One `Trainer.fit` with everything around it; `folder` is complete when its summary.json is there.

    `reinforced`: run of the model that forget=whp compares with.
    """
    cfg, benchmark = planned.cfg, planned.benchmark
    with torch_state.seeded(cfg.run.seed), contextlib.ExitStack() as stack:
        tokenizer = models.load_tokenizer(cfg.model, list_tokenizer_texts(benchmark, cfg.data.template))
        in_shards = cfg.trainer.strategy == "fsdp2"
        empty = in_shards and not distributed.is_first_rank()
        policy = models.load_policy(cfg.model, tokenizer, cfg.run.seed, empty)
        data = UnlearningDataModule(cfg, benchmark, tokenizer)
        # With shards all processes have to make the same number of forwards, and packed rows are as many as they are.
        batching = "padded" if in_shards else best_batching(cfg.data.batching, policy)
        jsonl = MetricsLogger(folder / "metrics.jsonl")
        jsonl.drop_rows_after(resuming.step(checkpoint) if checkpoint else -1)
        wandb = stack.enter_context(wandb_log(cfg.logger.wandb, folder, dataclasses.asdict(cfg)))
        loggers: list[Logger] = [jsonl, *wandb]
        trainer = make_trainer(planned, folder, loggers, data, retain)

        if in_shards:  # nor may the head be called in chunks, as many as a process has answers for
            cfg = dataclasses.replace(cfg, loss=dataclasses.replace(cfg.loss, chunk_tokens=2**31))

        def prepare(module: UnlearningModule) -> None:
            preparing.prepare(module, trainer, data, reinforced)

        trainer.fit(
            UnlearningModule(policy, cfg, batching, prepare=prepare), data, ckpt_path=checkpoint, weights_only=True
        )
    if distributed.is_first_rank():
        if cfg.eval.enabled:
            write_plots(folder)
        write_text(folder / runs.DONE, json.dumps(summarize(folder, retain), indent=1) + "\n")
    distributed.barrier()


def make_trainer(
    planned: Plan, folder: Path, loggers: list[Logger], data: UnlearningDataModule, retain: records.Evaluation | None
) -> L.Trainer:
    """Return the `lightning.Trainer` of section `trainer`, with tif's callbacks."""
    cfg = planned.cfg
    log = next(logger for logger in loggers if isinstance(logger, MetricsLogger))
    callbacks = make_callbacks(planned, folder, log, data.encoder, retain)
    return L.Trainer(
        **trainer_keys(cfg),
        plugins=[resuming.File(), *distributed.lightning_plugins()]
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
        resuming.Checkpoints(folder / "checkpoints", cfg.run.keep_checkpoints, cfg.run.checkpoint_every_n_steps),
        resuming.Seeds(cfg.run.seed),
        TrainingBar("unlearning" if unlearning else f"finetuning on the {cfg.data.train} set"),
    ]
    if cfg.eval.enabled:
        inputs = EvaluationInputs(cfg.eval, benchmark, plan.further, encoder, retain, folder / "eval")
        original = OriginalModel(cfg.model, cfg.run.seed, cfg.trainer.precision)
        callbacks.append(PolicyEvaluation(inputs, log, epochs, original))
        if unlearning:
            wants_spans = spans.wanted(cfg)
            has_gold = wants_spans and cfg.data.benchmark == "fictitious"
            forget = benchmark.forget if wants_spans else None
            gold = read_benchmark(cfg.data).forget if has_gold else None
            callbacks.append(Diagnosis(log, cfg.eval.stop_on, epochs, cfg.identifier.kind, forget, gold))
        if cfg.run.export and cfg.eval.best != "none":
            callbacks.append(KeepBest(log, cfg.eval.best, epochs, folder, encoder, merge))
    if cfg.run.export:
        callbacks.append(Export(folder, encoder, lambda: model_card(folder), merge))
    return callbacks


def quiet() -> None:
    """Leave the terminal to tif: no tips, no bars and no warnings of the libraries that no user can act on."""
    from transformers.utils import logging as transformers_logging

    for name in ("lightning.pytorch", "lightning.fabric", "bitsandbytes.backends.cpu"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*MatMul8bitLt: inputs will be cast.*")  # what model.quantize=int8 is
    warnings.filterwarnings("ignore", ".*past_key_values.*is deprecated.*")  # transformers < 5.24 knows no other name
    warnings.filterwarnings("ignore", ".*The `srun` command is available.*")  # tif starts its own processes
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")


def _from(checkpoint: Path | None) -> str:
    return f" [dim](goes on from {checkpoint.name})[/]" if checkpoint else ""
