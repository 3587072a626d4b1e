"""From a plan to a finished run folder; makes the stages that it needs first."""

import contextlib
import dataclasses
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock
import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from rich.markup import escape

from tif import evaluation, identifiers, models, records, report, runs, spans
from tif.callbacks import Export, JsonlLogger, TofuMetrics, TrainingBar
from tif.data.module import UnlearningDataModule, read_benchmark, texts
from tif.data.samples import fingerprint
from tif.diagnosis import Diagnosis, KeepBest
from tif.files import write_text
from tif.losses import original
from tif.metrics import overall
from tif.module import UnlearningModule
from tif.planning import Plan, plan, stage_plan, trainer_keys, wants_forget_quality
from tif.schema import Config
from tif.scoring import best_batching
from tif.terminal import console


def run(cfg: Config) -> Path:
    """Do all that `cfg` asks for: stages, training, evaluation, export, report.

    Returns:
        The run's folder; of the stage, where `cfg.stage` names one.

    Raises:
        ConfigError: Before any weights load, if something is wrong with the configuration or its files.
        FloatingPointError: If the loss is not finite; the run folder stays for a look, without a summary.
    """
    quiet()
    if cfg.stage:
        return make_stage(stage_plan(cfg, cfg.stage), cfg.stage)
    return unlearn(plan(cfg))


def make_stage(planned: Plan, name: str) -> Path:
    """Make a stage's run unless it is there already; safe when several processes ask for it at once."""
    cfg, benchmark = planned.cfg, planned.benchmark
    data = fingerprint((*benchmark.background, *benchmark.retain, *benchmark.forget))
    folder = runs.stage_folder(cfg, name, data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if (folder / runs.DONE).exists():
            console.print(f"stage {name}: {escape(str(folder))} [dim](made before)[/]", soft_wrap=True)
            return folder
        own = dataclasses.replace(cfg.run, name=folder.name, folder=str(folder.parent), export=True)
        cfg = dataclasses.replace(cfg, run=own)
        checkpoint = runs.newest_checkpoint(folder) if runs.same_config(folder, cfg) and own.resume == "auto" else None
        console.print(f"stage {name}: {escape(str(folder))}{_from(checkpoint)}", soft_wrap=True)
        runs.write_start(folder, cfg)
        train(dataclasses.replace(planned, cfg=cfg), folder, None, checkpoint)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # its model/ is what others read
    return folder


def unlearn(planned: Plan) -> Path:
    """The run itself, after its spans and stages."""
    cfg = planned.cfg
    made: dict[str, Path] = {}
    if spans.wanted(cfg) and cfg.identifier.kind in identifiers.COSTLY:
        # First of all, and with no more stages than it asks: a server that is not there shows before hours of training.
        made |= {name: make_stage(planned.stages[name], name) for name in dict.fromkeys(spans.stages(cfg))}
        forget = spans.identified(cfg, planned.benchmark.forget, made)
        planned = dataclasses.replace(planned, benchmark=dataclasses.replace(planned.benchmark, forget=forget))
    made |= {name: make_stage(stage, name) for name, stage in planned.stages.items() if name not in made}
    retain = planned.retain
    if cfg.eval.retain_records in made and wants_forget_quality(cfg):
        retain = retain_records(planned, made[cfg.eval.retain_records])
    folder, checkpoint = runs.new_folder(cfg)
    console.print(f"run: {escape(str(folder))}{_from(checkpoint)}", soft_wrap=True)
    if cfg.model.path in made:
        model = dataclasses.replace(cfg.model, path=str(made[cfg.model.path] / "model"))
        planned = dataclasses.replace(planned, cfg=dataclasses.replace(cfg, model=model))
    runs.write_start(folder, cfg)
    if retain:
        write_text(folder / report.RETAIN, json.dumps(overall.aggregate(retain), indent=1) + "\n")
    train(planned, folder, retain, checkpoint)
    report.show(folder)
    return folder


def train(planned: Plan, folder: Path, retain: records.Evaluation | None, checkpoint: Path | None) -> None:
    """One `Trainer.fit` with everything around it; `folder` is complete when its summary.json is there."""
    cfg, benchmark = planned.cfg, planned.benchmark
    with models.seeded(cfg.run.seed), contextlib.ExitStack() as stack:
        tokenizer = models.load_tokenizer(cfg.model, texts(benchmark, cfg.data.template))
        policy = models.load_policy(cfg.model, tokenizer, cfg.run.seed)
        data = UnlearningDataModule(cfg, benchmark, tokenizer)
        batching = best_batching(cfg.data.batching, policy)
        jsonl = JsonlLogger(folder / "metrics.jsonl")
        jsonl.keep_until(_epoch(checkpoint) if checkpoint else -1)
        loggers: list[Logger] = [jsonl, *stack.enter_context(_wandb(cfg, folder))]
        trainer = make_trainer(planned, folder, loggers, data, retain)
        module = UnlearningModule(policy, cfg, batching)
        if (needed := original(cfg.loss)) != "none":
            policy.to(trainer.strategy.root_device)  # type: ignore[arg-type]
            # Under the trainer's precision, or the reference would not be what the policy says at step 0.
            precision = trainer.strategy.precision_plugin
            precision.convert_module(policy)  # in place
            with precision.forward_context():
                kind = "frozen" if needed == "model" else cfg.model.reference
                module.reference = models.make_reference(
                    kind, policy, data.items, data.encoder.pad_id, batching, Path(cfg.run.folder) / "references"
                )
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        if cfg.eval.enabled:
            report.write_plots(folder)
        write_text(folder / runs.DONE, json.dumps(report.summary(folder), indent=1) + "\n")


def make_trainer(
    planned: Plan, folder: Path, loggers: list[Logger], data: UnlearningDataModule, retain: records.Evaluation | None
) -> L.Trainer:
    """`lightning.Trainer` from `cfg.trainer`, with tif's callbacks."""
    cfg = planned.cfg
    what = "unlearning" if cfg.data.train == "forget" else f"finetuning on the {cfg.data.train} set"
    callbacks: list[Callback] = [TrainingBar(what)]
    if cfg.eval.enabled:
        callbacks.append(TofuMetrics(cfg, data.benchmark, data.encoder, folder / "eval", retain, planned.further))
        if cfg.data.train == "forget":
            told = spans.wanted(cfg)
            gold = read_benchmark(cfg.data).forget if told and cfg.data.benchmark == "fictitious" else None
            callbacks.append(Diagnosis(cfg, data.benchmark.forget if told else None, gold))
        if cfg.run.export and cfg.eval.best != "none":
            callbacks.append(KeepBest(cfg, folder, data.encoder))
    if cfg.run.export:
        callbacks.append(Export(folder, data.encoder, lambda: report.model_card(folder)))
    if cfg.run.keep_checkpoints:
        callbacks.append(
            ModelCheckpoint(
                folder / "checkpoints",
                "{epoch}-{step}",
                "epoch",
                mode="max",
                save_top_k=cfg.run.keep_checkpoints,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )  # fmt: skip
        )
    return L.Trainer(
        **trainer_keys(cfg),
        logger=loggers,
        callbacks=callbacks,
        enable_checkpointing=bool(cfg.run.keep_checkpoints),
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module's own sampler knows ranks
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


def retain_records(planned: Plan, stage: Path) -> records.Evaluation:
    """The retain stage's records under this run's evaluation rules; made once, kept beside the stage's model."""
    cfg = planned.cfg
    model = dataclasses.replace(cfg.model, path=str(stage / "model"))
    encoder = evaluation.Encoder(models.load_tokenizer(model, ()), cfg.data.template, cfg.data.overlap)
    benchmark = planned.benchmark
    sets = evaluation.cut(benchmark.sets, cfg.eval, benchmark.tasks)
    rules = evaluation.described(cfg.eval, encoder, benchmark.tasks)
    device = L.Trainer(
        accelerator=cfg.trainer.accelerator, devices=1, logger=False, enable_checkpointing=False
    ).strategy.root_device
    folder = stage / "eval" / runs.digest([rules, *(fingerprint(found) for found in sets.values())])
    with filelock.FileLock(f"{stage}.lock"):
        if (folder / records.AGGREGATES).exists():
            return records.read(folder)
        console.print("evaluating the retain model")
        with models.seeded(cfg.run.seed):
            policy = models.load_policy(model, encoder.tokenizer, cfg.run.seed)
        policy.to(device)  # type: ignore[arg-type]
        batching = best_batching(cfg.data.batching, policy)
        found = evaluation.evaluate(
            policy, encoder, benchmark.sets, cfg.eval, batching, str(stage), tasks=benchmark.tasks
        )
        records.write(folder, found, overall.aggregate(found))
    return found


def quiet() -> None:
    """Leave the terminal to tif: no tips, no bars and no warnings of the libraries that no user can act on."""
    from transformers.utils import logging as transformers_logging

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*past_key_values.*is deprecated.*")  # transformers < 5.24 knows no other name
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 beside torch 2.13
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")


@contextlib.contextmanager
def _wandb(cfg: Config, folder: Path) -> Iterator[list[Logger]]:
    """The W&B logger where one is wanted; its run ends with the block, so that the next one starts its own."""
    own = cfg.logger.wandb
    if not own.enabled:
        yield []
        return
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(folder.name, folder, project=own.project, entity=own.entity, offline=own.offline)
    logger.experiment.config.update(dataclasses.asdict(cfg))
    try:
        yield [logger]
    except BaseException:
        logger.experiment.finish(1)
        raise
    logger.experiment.finish()


def _from(checkpoint: Path | None) -> str:
    return f" [dim](goes on from {checkpoint.name})[/]" if checkpoint else ""


def _epoch(checkpoint: Path) -> int:
    return int(checkpoint.stem.split("-")[0].removeprefix("epoch="))
