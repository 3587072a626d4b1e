"""Train one run in its folder, a stage's as well as the run's own: from the plan to summary.json.

What is loaded before the first step is in `training/prepare`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from tif import identifiers
from tif.config.schema import Config
from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
from tif.data.encoding import Encoder
from tif.identifiers.span_cache import RUN_SPANS
from tif.identifiers.span_file import write_spans
from tif.metrics import overall
from tif.models import load as models
from tif.records import metrics_log, run_folder
from tif.records.files import write_evaluation
from tif.reports.html.charts import Chart
from tif.reports.html.run_report import write_run_report
from tif.reports.run_tables import show_run
from tif.reports.summary import summarize
from tif.training import checkpoints, resume
from tif.training import plan as planning
from tif.training.callbacks.evaluation import Diagnosis, PolicyEvaluation
from tif.training.callbacks.exports import Export, KeepBest
from tif.training.callbacks.loggers import MetricsLogger, log_outputs, wandb_loggers
from tif.training.callbacks.progress import StepTimes, TrainingBar
from tif.training.checks import trainer_arguments
from tif.training.plan import Plan
from tif.training.prepare import prepare_training
from tif.utils import distributed, torch_state
from tif.utils.files import remove, write_text
from tif.utils.terminal import console, literal


def train(plan: Plan, folder: Path, checkpoint: Path | None, stored: Config) -> None:
    """Train in a run folder, which is complete when its summary.json is there.

    Args:
        plan: complete: its stages' folders and the retain model's records are there.
        folder: of the run.
        checkpoint: what the run goes on from; None = it begins.
        stored: the configuration as config.yaml has it, with stages by their names.
    """
    distributed.run_on_first_rank(lambda: start_folder(plan, folder, checkpoint, stored))
    cfg = plan.cfg
    with wandb_loggers(plan, folder) as loggers, torch_state.seeded(cfg.run.seed):
        texts = list_tokenizer_texts(plan.benchmark, cfg.data.prompts)
        tokenizer = models.load_tokenizer(cfg.model, texts)
        encoder = Encoder(tokenizer, cfg.data.prompts, cfg.data.overlap)
        log = MetricsLogger(folder / metrics_log.FILE_NAME)
        if distributed.is_first_rank():  # a resumed run makes the rows after its checkpoint again
            steps = checkpoints.steps_done(checkpoint) if checkpoint else -1
            metrics_log.drop_rows_after(log.path, steps, resume.read_rows(folder)[0])
            for logger in loggers:
                logger.log_rows(metrics_log.read_rows(log.path))
        trainer = L.Trainer(
            **trainer_arguments(cfg.trainer),
            plugins=[*distributed.lightning_plugins(), checkpoints.DirectCheckpointIO()],
            logger=[log, *loggers],
            callbacks=make_callbacks(plan, resume.name_result(stored), log, encoder),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module's own sampler knows ranks
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )
        module, data = prepare_training(plan, encoder, trainer)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        if distributed.is_first_rank():
            charts = _finish_run(plan, folder, trainer.global_step)
            log_outputs(loggers, plan, folder, charts)
    distributed.barrier()


def start_folder(plan: Plan, folder: Path, checkpoint: Path | None, stored: Config) -> None:
    """Print what is made and where, and write what a run folder holds before the first step."""
    title = f"stage {plan.stage}" if plan.stage else "run"
    origin = [literal(f"(goes on from {checkpoint.name})", "dim")] if checkpoint else []
    console.print(f"{title}: {folder}", *origin, soft_wrap=True)
    if checkpoint is None:
        remove(folder / run_folder.TIMES_FILE)  # of a run that starts over
    text, steps = resume.config_text(stored), planning.count_steps(plan)
    run_folder.start_run(folder, text, steps, plan.stage_folders)
    if plan.stage:
        return
    if checkpoint is None:
        run_folder.add_times(folder, plan.seconds)
    cfg = plan.cfg
    if planning.wants_spans(cfg) and cfg.identifier.kind != "gold":  # those the data has
        settings = identifiers.describe_settings(planning.identifier_of(cfg), cfg.data.prompts)
        write_spans(folder / RUN_SPANS, plan.benchmark.forget, settings)
    if plan.retain_records:
        # The run folder alone tells everything: also what the run was compared with.
        metrics = overall.aggregate(plan.retain_records)
        write_evaluation(folder / run_folder.RETAIN_FOLDER, plan.retain_records, metrics)


def _finish_run(plan: Plan, folder: Path, steps: int) -> Sequence[Chart]:
    """Write the report, show the tables and write summary.json: it says that nothing is left.

    `steps`: optimizer steps that were made. Returns the report's charts; a stage has no report.
    """
    summary, charts = summarize(folder, plan.retain_records), list[Chart]()
    summary["steps"]["made"] = steps  # also where not every step has a row
    if not plan.stage:
        _, charts = write_run_report(folder, summary)
    try:
        if not plan.stage:
            show_run(folder, summary)
            console.file.flush()
    finally:  # also where nobody reads the output any more
        summary[run_folder.MODEL_FILES] = run_folder.describe_model(folder)
        write_text(folder / run_folder.SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
    return charts


def make_callbacks(
    plan: Plan, result: str, log: MetricsLogger, encoder: Encoder
) -> list[Callback]:
    """Return what a run does beside its steps, in the order in which Lightning calls it.

    `result`: names the run in its checkpoints (`resume.name_result`).
    """
    cfg, folder = plan.cfg, log.path.parent
    is_unlearning = cfg.data.train == "forget"
    # Checkpoints first: an epoch's checkpoint is written before the epoch is evaluated.
    callbacks: list[Callback] = [
        checkpoints.Checkpoints(folder / "checkpoints", cfg.run, result),
        checkpoints.StepSeeds(cfg.run.seed),
        StepTimes(folder),
        TrainingBar("unlearning" if is_unlearning else f"finetuning on the {cfg.data.train} set"),
    ]
    if cfg.eval.enabled:
        callbacks.append(PolicyEvaluation(plan, encoder, folder / "eval", log))
        if is_unlearning:
            has_gold = planning.wants_spans(cfg) and cfg.data.benchmark == "fictitious"
            gold = read_benchmark(cfg.data).forget if has_gold else None
            callbacks.append(Diagnosis(plan, log, gold))
        if cfg.run.export and cfg.eval.best != "none":
            callbacks.append(KeepBest(plan, log, folder, encoder))
    if cfg.run.export:
        callbacks.append(Export(folder, encoder, cfg.model.lora.merge))
    return callbacks
