"""Make runs: from a configuration to a finished run folder, with the stages that it needs.

Called by `tif fit`, `sweep` and `tif identify` (whose models may be stages).
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

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
from tif.records import metrics_log, run_times
from tif.records.run_times import Seconds, add_times, measured, read_times
from tif.records.types import Evaluation
from tif.reports.html.run_report import write_run_report
from tif.reports.run_folder import RETAIN_FOLDER, summarize
from tif.reports.run_tables import show_run
from tif.training import checkpoints, run_folders
from tif.training import plan as planning
from tif.training.audited_run import audit_finished_run
from tif.training.callbacks.diagnosis import Diagnosis
from tif.training.callbacks.evaluation import PolicyEvaluation
from tif.training.callbacks.exports import Export, KeepBest
from tif.training.callbacks.loggers import MetricsLogger, log_outputs, wandb_loggers
from tif.training.callbacks.progress_bar import TrainingBar
from tif.training.callbacks.step_times import StepTimes
from tif.training.checkpoints import Preempted
from tif.training.checks import trainer_arguments
from tif.training.first_line import describe_start
from tif.training.plan import Plan
from tif.training.prepare import prepare_training
from tif.training.retain_model import retain_model_records
from tif.training.run_folders import RunIdentity
from tif.training.stages import explain_new_stage
from tif.training.steps import count_steps
from tif.utils import distributed, interrupts, torch_state
from tif.utils.command_line import print_error, report_os_error
from tif.utils.files import DamagedFile, remove, write_text
from tif.utils.terminal import console, literal, print_line, quiet_libraries, silence


def run(cfg: Config, preset: str = "", notes: Sequence[str] = ()) -> Path:
    """Do all that a configuration asks for; return the folder of the run, or of `cfg.stage`.

    The first line names `preset`, the files that the configuration comes from; `notes` follow it.

    Raises:
        ConfigError: Before any weights load, if the configuration or its files are wrong.
        FloatingPointError: If the loss is not finite; the run folder stays, without a summary.
        Preempted: If a signal asked the run to stop; the same call goes on.
    """
    quiet_libraries()
    plan = planning.plan_stage(cfg, cfg.stage) if cfg.stage else planning.plan_run(cfg)
    distributed.start(cfg.trainer.accelerator)
    if not distributed.is_first_rank():
        silence()
    for line in (describe_start(plan, preset), *notes):
        print_line(line)
    return make_stage(plan) if cfg.stage else unlearn(plan)


def attempt(work: Callable[[], Any]) -> int:
    """Call `work`; print as one line what stops it, and return the exit code.

    0 = done, 1 = the loss was not finite or a file could not be read or written, 128 + N = stopped
    by signal N. A ConfigError is raised, for the command to handle.
    """
    try:
        work()
    except ConfigError:
        raise
    except Preempted as error:
        interrupts.say(str(error))
        return 128 + error.signal
    except (DamagedFile, FloatingPointError) as error:
        print_error(error)
        return 1
    except Exception as error:
        next_step = "the same command goes on from the last checkpoint"
        return report_os_error(error, f"what was complete is there, and {next_step}")
    return 0


def make_stage(plan: Plan) -> Path:
    """Return the folder of a stage's finished run; train the stage unless it is there already.

    Safe when several processes call at once: one makes the stage, the others wait.
    """
    folder, title = plan.folder, f"stage {plan.stage}"
    run = planning.identify_run(plan.cfg)

    def start() -> Path | None:
        checkpoint = None
        if run_folders.has_config(folder, run.config_text):
            checkpoint = run_folders.find_newest_checkpoint(folder, run)
        elif why := explain_new_stage(plan.cfg, folder):
            console.print(f"{title}: {why}", soft_wrap=True)
        _start_run(title, run, count_steps(plan), folder, checkpoint)
        return checkpoint

    def is_made() -> bool:
        if not run_folders.is_finished(folder):
            return False
        damage = run_folders.find_damaged_model(folder)
        if damage:
            console.print(f"{damage}: {title} is made again", soft_wrap=True)
            for name in (run_folders.DONE, "checkpoints"):
                remove(folder / name)
        return damage is None

    folder.parent.mkdir(parents=True, exist_ok=True)
    with distributed.locked_on_first_rank(f"{folder}.lock", title):
        if distributed.run_on_first_rank(is_made):
            console.print(f"{title}: {folder}", literal("(made before)", "dim"), soft_wrap=True)
            return folder
        train(plan, run, folder, None, distributed.run_on_first_rank(start))
        if distributed.is_first_rank():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


def unlearn(plan: Plan) -> Path:
    """Return the folder of a finished run; first find the unwanted words and make the stages."""
    cfg = plan.cfg
    stages: dict[str, Path] = {}
    seconds: Seconds = {}
    if planning.wants_spans(cfg) and cfg.identifier.kind in identifiers.COSTLY_KINDS:
        # First, with no more stages than needed: a missing server shows before hours of training.
        for name in planning.identifier_stages(cfg):
            stages[name] = make_stage(plan.stages[name])
        with measured(seconds, "identification"):
            plan = with_unwanted_words(plan, stages)
    for name, stage in plan.stages.items():
        if name not in stages:
            stages[name] = make_stage(stage)
    retain = plan.retain_records
    if cfg.eval.retain_records in stages and planning.wants_forget_quality(cfg):
        stage_folder = stages[cfg.eval.retain_records]
        with measured(seconds, "retain model's evaluation"):
            retain = retain_model_records(plan, str(stage_folder / "model"), stage_folder)
    elif cfg.eval.retain_model and planning.wants_forget_quality(cfg):
        folder = planning.retain_model_folder(cfg)
        folder.mkdir(parents=True, exist_ok=True)
        with measured(seconds, "retain model's evaluation"):
            retain = retain_model_records(plan, cfg.eval.retain_model, folder)
    if cfg.model.path in stages:
        model = dataclasses.replace(cfg.model, path=str(stages[cfg.model.path] / "model"))
        plan = dataclasses.replace(plan, cfg=dataclasses.replace(cfg, model=model))
    reinforced = None
    if cfg.loss.forget == "whp":
        reinforced = make_stage(planning.plan_reinforced_model(plan))
    run = planning.identify_run(cfg)
    with distributed.entered_on_first_rank(run_folders.claim_run_folder(cfg.run, run)) as claim:
        folder, checkpoint = claim

        def start() -> None:
            _start_run("run", run, count_steps(plan), folder, checkpoint, stages)
            for name, stage_folder in stages.items():
                seconds[f"stage {name}"] = sum(read_times(stage_folder).values())
            add_times(folder, seconds if checkpoint is None else {})
            if retain:
                # The run folder alone tells everything: also what the run was compared with.
                metrics = overall.aggregate(retain)
                records.write_evaluation(folder / RETAIN_FOLDER, retain, metrics)

        distributed.run_on_first_rank(start)
        train(plan, run, folder, retain, checkpoint, reinforced)
    if cfg.eval.audit:
        audit_finished_run(folder, cfg.eval.audit)
    return folder


def with_unwanted_words(plan: Plan, stages: Mapping[str, Path]) -> Plan:
    """Return the plan with the spans of an identifier that asks models; `stages`: their folders."""
    identifier = stored_spans.with_stage_models(planning.identifier_of(plan.cfg), stages)
    folder, forget = Path(plan.cfg.run.folder) / "spans", plan.benchmark.forget
    file = stored_spans.span_path(identifier, forget, plan.cfg.data.prompts, folder)

    def identify() -> tuple[Sample, ...]:
        return stored_spans.identify_once(identifier, forget, plan.cfg.data.prompts, folder)

    benchmark = dataclasses.replace(plan.benchmark, forget=distributed.run_on_first_rank(identify))
    return dataclasses.replace(plan, benchmark=benchmark, span_file=file)


def _start_run(
    title: str, run: RunIdentity, steps: int, folder: Path, checkpoint: Path | None,
    stages: Mapping[str, Path] | None = None,
) -> None:  # fmt: skip
    origin = [literal(f"(goes on from {checkpoint.name})", "dim")] if checkpoint else []
    console.print(f"{title}: {folder}", *origin, soft_wrap=True)
    if checkpoint is None:
        remove(folder / run_times.FILE_NAME)  # of a run that starts over
    run_folders.start_run(folder, run.config_text, steps, stages)


def train(
    plan: Plan, run: RunIdentity, folder: Path, retain: Evaluation | None,
    checkpoint: Path | None, reinforced: Path | None = None,
) -> None:  # fmt: skip
    """Train in a run folder, which is complete when its summary.json is there.

    `retain` holds the retain model's records; the run goes on from `checkpoint`; `reinforced` is
    the run of the model that loss.forget=whp compares with.
    """
    cfg = plan.cfg
    with wandb_loggers(plan, folder) as loggers, torch_state.seeded(cfg.run.seed):
        texts = list_tokenizer_texts(plan.benchmark, cfg.data.prompts)
        tokenizer = models.load_tokenizer(cfg.model, texts)
        encoder = Encoder(tokenizer, cfg.data.prompts, cfg.data.overlap)
        log = MetricsLogger(folder / metrics_log.FILE_NAME)
        if distributed.is_first_rank():  # a resumed run makes the rows after its checkpoint again
            steps = checkpoints.steps_done(checkpoint) if checkpoint else -1
            metrics_log.drop_rows_after(log.path, steps, run_folders.read_rows(folder)[0])
            for logger in loggers:
                logger.log_rows(metrics_log.read_rows(log.path))
        plugins = distributed.lightning_plugins()
        if cfg.trainer.strategy != "fsdp2":  # which writes its shards itself
            plugins.append(checkpoints.DirectCheckpointIO())
        trainer = L.Trainer(
            **trainer_arguments(cfg.trainer),
            plugins=plugins,
            logger=[log, *loggers],
            callbacks=make_callbacks(plan, run, log, encoder, retain),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module's own sampler knows ranks
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        module, data = prepare_training(plan, encoder, trainer, reinforced)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        if distributed.is_first_rank():
            _finish_run(plan, folder, retain, trainer.global_step)
            log_outputs(loggers, plan, folder)
    distributed.barrier()


def _finish_run(plan: Plan, folder: Path, retain: Evaluation | None, steps: int) -> None:
    """Write the report, show the tables and write summary.json: it says that nothing is left.

    `steps`: optimizer steps that were made.
    """
    summary = summarize(folder, retain)
    summary["steps"]["made"] = steps  # also where not every step has a row
    if not plan.stage:
        write_run_report(folder, summary)
    try:
        if not plan.stage:
            show_run(folder, summary)
            console.file.flush()
    finally:  # also where nobody reads the output any more
        summary[run_folders.MODEL_FILES] = run_folders.describe_model(folder)
        write_text(folder / run_folders.DONE, json.dumps(summary, indent=1) + "\n")


def make_callbacks(
    plan: Plan, run: RunIdentity, log: MetricsLogger, encoder: Encoder, retain: Evaluation | None
) -> list[Callback]:
    """Return what a run does beside its steps, in the order in which Lightning calls it."""
    cfg, folder = plan.cfg, log.path.parent
    is_unlearning = cfg.data.train == "forget"
    # Checkpoints first: an epoch's checkpoint is written before the epoch is evaluated.
    callbacks: list[Callback] = [
        checkpoints.Checkpoints(folder / "checkpoints", cfg.run, run.numbers),
        checkpoints.StepSeeds(cfg.run.seed),
        StepTimes(folder),
        TrainingBar("unlearning" if is_unlearning else f"finetuning on the {cfg.data.train} set"),
    ]
    if cfg.eval.enabled:
        callbacks.append(PolicyEvaluation(plan, encoder, folder / "eval", retain, log))
        if is_unlearning:
            has_gold = planning.wants_spans(cfg) and cfg.data.benchmark == "fictitious"
            gold = read_benchmark(cfg.data).forget if has_gold else None
            callbacks.append(Diagnosis(plan, log, gold))
        if cfg.run.export and cfg.eval.best != "none":
            callbacks.append(KeepBest(plan, log, folder, encoder))
    if cfg.run.export:
        callbacks.append(Export(folder, encoder, cfg.model.lora.merge))
    return callbacks
