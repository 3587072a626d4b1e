"""A run's plan: its configuration checked against the disk, and what the checks had to read anyway.

Nothing is written and no weights load.
"""

import contextlib
import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from tif import identifiers
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems, one_line
from tif.config.schema import Config, Identifier
from tif.data.benchmarks import (
    list_tokenizer_texts,
    read_benchmark,
    read_evaluation_sets,
)
from tif.data.encoding import Encoder, split_into_pieces
from tif.data.samples import Benchmark, select_training_samples
from tif.evaluation import lm_eval_tasks
from tif.evaluation.evaluate import describe_protocol
from tif.evaluation.prompt_format import resolve_template
from tif.evaluation.questions import compared_sets, find_expected_mismatch
from tif.identifiers import span_cache
from tif.identifiers.registration import get_kind
from tif.models import load as models
from tif.probes.check_model import check_model
from tif.probes.small_copy import RowSettings
from tif.records import files as records
from tif.records import run_folder
from tif.training import checks, resume, stages
from tif.utils import distributed
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.hub import find_data_file


@dataclasses.dataclass
class Plan:
    """What a run is made from; the steps of `training/inputs` complete it.

    Attributes:
        cfg: the run's configuration; of a stage, that of its own run.
        benchmark: the samples; with their unwanted words, where those cost no time.
        stage: the name of the stage that this is a plan of; None = a run.
        run_name: name of the run that this is a plan of, or that the stage is made for.
        stages: plans of the runs that must exist first, by name.
        family: of the model ("llama"), as its records name it.
        span_file: where the unwanted words are stored, if they are in a file.
        encoder: of the model's tokenizer; None where a stage makes the model.
        retain_records: the retain model's records, where they exist already.
        other_benchmarks: what is evaluated besides, by name.
        stage_folders: folders of the stages' runs that were made, by name.
        seconds: how long it took to make what the run needs, by name.
    """

    cfg: Config
    benchmark: Benchmark
    stage: str | None = None
    run_name: str = ""
    stages: dict[str, "Plan"] = dataclasses.field(default_factory=dict)
    family: str | None = None
    span_file: Path | None = None
    encoder: Encoder | None = None
    retain_records: records.Evaluation | None = None
    other_benchmarks: dict[str, Benchmark] = dataclasses.field(default_factory=dict)
    stage_folders: dict[str, Path] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of a stage's run; a run itself may get a numbered one beside it."""
        return Path(self.cfg.run.folder) / self.cfg.run.name


def plan_run(cfg: Config) -> Plan:
    """Return the plan of a run.

    Raises:
        ConfigError: With all problems, one a line.
    """
    cfg = resolve_template(cfg)
    problems = cfg.data.prompts.find_problems("data.")
    # A stage has the name of its run here; it gets one of its own later.
    plan = Plan(cfg, Benchmark("", (), (), {}), run_name=cfg.run.name)
    with collect_problems(problems):
        resume.check_run_folder(cfg)
    with collect_problems(problems):
        checks.check_trainer_and_loss(cfg.trainer, cfg.loss, cfg.data, cfg.model.reference)
    with collect_problems(problems):
        checks.check_wandb(cfg.logger.wandb)
    if cfg.model.path not in cfg.stages:
        with collect_problems(problems):
            plan.family = check_model(cfg.model, cfg.run.export, wanted_rows(cfg))
            plan.encoder = checks.check_tokenizer(cfg.model, cfg.data)
    _read_evaluation_inputs(plan, problems)
    with collect_problems(problems):
        plan.benchmark = read_benchmark(cfg.data)
        _identify_words(plan)
        checks.check_samples(plan.benchmark, cfg.data, cfg.loss)
    if not problems:  # stages share most keys: their problems would be the same
        problems += _plan_stages(plan)
    if not problems:
        with collect_problems(problems):
            start = plan
            while start.cfg.model.path in start.stages:
                start = start.stages[str(start.cfg.model.path)]
            checks.check_hidden_layer(cfg.loss, start.cfg.model)
            if start is not plan and cfg.model.lora.rank:  # adapters of what the stage will make
                model = dataclasses.replace(start.cfg.model, lora=cfg.model.lora)
                check_model(model, cfg.run.export)
    if plan.benchmark.name and wants_forget_quality(cfg):
        with collect_problems(problems):
            _check_comparison(plan)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return plan


def plan_stage(cfg: Config, name: str) -> Plan:
    """Return the plan of one of a run's stages.

    Raises:
        ConfigError: As `plan_run`, or if there is no such stage.
    """
    cfg = resolve_template(cfg)
    stage = stages.stage_config(config.stage(cfg, name))
    path = (cfg.stages[name] or {}).get("path")
    if path is not None:
        return dataclasses.replace(_plan_pinned(stage, name, path), stage=name)
    plan = plan_run(stage)
    placed = stages.place_stage(plan.cfg, name, plan.benchmark)
    return dataclasses.replace(plan, cfg=placed, stage=name)


def _plan_pinned(cfg: Config, name: str, path: Any) -> Plan:
    """Return the plan of a stage that is a finished run already, by its key `path`."""
    folder = Path(os.path.expanduser(str(path)))
    if not (run_folder.is_finished(folder) and (folder / "model").is_dir()):
        raise ConfigError(
            f"path: {path} is no finished run with a model; want the folder of a stage or run, "
            f"or no path (the stage {name} is then made)"
        )
    if damage := run_folder.find_damaged_model(folder):
        raise ConfigError(f"path: {damage}; want another run")
    run = dataclasses.replace(cfg.run, folder=str(folder.parent), name=folder.name)
    model = dataclasses.replace(cfg.model, path=str(folder / "model"))
    family = check_model(model, rows=wanted_rows(cfg))
    pinned = dataclasses.replace(cfg, run=run, model=model)
    return Plan(pinned, read_benchmark(cfg.data), family=family)


def plan_further_stage(plan: Plan, name: str) -> Plan:
    """Return the plan of a stage that trains a run's own model further on the forget set."""
    placed = stages.place_stage(stages.further_config(plan.cfg), name, plan.benchmark)
    return Plan(placed, plan.benchmark, name, plan.run_name)


def wanted_rows(cfg: Config) -> RowSettings:
    """Return how the run wants its rows, and where its model will run."""
    return RowSettings(cfg.data.batching, distributed.select_device(cfg.trainer.accelerator))


def wants_spans(cfg: Config) -> bool:
    """Return whether the run's loss tells unwanted from general words."""
    reads_words = cfg.loss.on == "uw" or cfg.loss.preserve != "none"
    return cfg.data.train == "forget" and reads_words


def wants_forget_quality(cfg: Config) -> bool:
    """Return whether the run computes forget quality."""
    return cfg.data.train == "forget" and cfg.eval.enabled and cfg.eval.forget_quality


def retain_model_folder(cfg: Config) -> Path:
    """Return the folder for the records of `eval.retain_model`, among the stages."""
    path = str(cfg.eval.retain_model)
    name = f"retain_model-{Path(path).name}-{hash_json([path, list_model_files(path)])}"
    return Path(cfg.run.folder) / "stages" / name


def identifier_of(cfg: Config) -> Identifier:
    """Return section `identifier` with the models that it takes from section `model`."""
    return span_cache.complete_identifier(cfg.identifier, cfg.model)


def identifier_stages(cfg: Config) -> tuple[str, ...]:
    """Return the names of the stages whose models the identifier asks."""
    return span_cache.list_stages(identifier_of(cfg), tuple(cfg.stages))


def check_identifier(cfg: Config) -> None:
    """Raise ValueError, one line a problem, if a model that the identifier asks is none."""
    identifiers.check_models(identifier_of(cfg), cfg.data.prompts, tuple(cfg.stages))


def _read_evaluation_inputs(plan: Plan, problems: list[str]) -> None:
    """Read the other benchmarks, the data of lm-eval's tasks and the retain model's records."""
    cfg, settings = plan.cfg, plan.cfg.eval
    with collect_problems(problems):
        if settings.enabled and settings.lm_eval_tasks():
            lm_eval_tasks.check_tasks(settings.lm_eval_tasks(), settings.lm_eval.folder)
            lm_eval_tasks.read_tasks(settings.lm_eval_tasks(), settings.lm_eval.folder)
    for name in settings.data_benchmarks() if settings.enabled else ():
        with collect_problems(problems):
            plan.other_benchmarks[name] = read_evaluation_sets(name, settings)
    path = settings.retain_records
    if wants_forget_quality(cfg) and settings.retain_model:
        with collect_problems(problems):
            models.check_retain_model(settings.retain_model, cfg.model)
    elif wants_forget_quality(cfg) and path not in cfg.stages:
        try:
            plan.retain_records = records.read_evaluation(str(find_data_file(str(path))))
        except (OSError, ValueError) as error:
            wanted = "want the eval folder of a retain model's run or a stage's name"
            reason = f"{path}: {wanted} ({one_line(error)})"
            if isinstance(error, FileNotFoundError) and error.errno is None:  # of the hub
                reason = one_line(error, 500)
            problems.append(f"eval.retain_records: {reason}")


def _identify_words(plan: Plan) -> None:
    cfg, is_needed = plan.cfg, wants_spans(plan.cfg)
    if is_needed:
        check_identifier(cfg)
        if cfg.identifier.kind == "precomputed":
            plan.span_file = Path(os.path.expanduser(str(cfg.identifier.path)))
    is_costly = get_kind(cfg.identifier.kind).is_costly  # loads models: after all checks
    if is_costly or cfg.data.train != "forget":
        return
    # Words that the loss does not read are evaluated all the same, as far as they can be had.
    with contextlib.suppress(*(() if is_needed else (OSError, ValueError))):
        forget = identifiers.identify(cfg.identifier, plan.benchmark.forget)
        plan.benchmark = dataclasses.replace(plan.benchmark, forget=forget)


def _plan_stages(plan: Plan) -> list[str]:
    """Plan the stages that the run needs; return their problems, each once."""
    cfg = plan.cfg
    names = [cfg.model.path]
    if wants_forget_quality(cfg):
        names.append(cfg.eval.retain_records)
    if wants_spans(cfg):
        names += identifier_stages(cfg)
    problems: dict[str, str] = {}
    for name in dict.fromkeys(name for name in names if name in cfg.stages):
        stage_problems: list[str] = []
        with collect_problems(stage_problems):
            plan.stages[str(name)] = plan_stage(cfg, str(name))
        for line in stage_problems:
            problems.setdefault(line, f"stages.{name}.{line}")
    if cfg.model.path in plan.stages:
        start = plan.stages[str(cfg.model.path)]
        plan.family, plan.encoder = start.family, start.encoder
    return list(problems.values())


def _check_comparison(plan: Plan) -> None:
    """Refuse now what forget quality would refuse after the first evaluation."""
    cfg, benchmark = plan.cfg, plan.benchmark
    measure = "PrivLeak" if cfg.data.reader.is_muse else "forget quality"
    for name in compared_sets(benchmark):
        if name not in benchmark.sets:
            raise ConfigError(
                f"eval.forget_quality: {measure} needs {name}, which {benchmark.name} does not "
                "have (no holdout texts?); want eval.forget_quality=false"
            )
    retain = plan.retain_records
    if retain:
        protocol = None
        if plan.encoder:
            protocol = describe_protocol(cfg.eval, plan.encoder, benchmark.tasks)
        problem = find_expected_mismatch(retain, benchmark, cfg.eval, plan.family, protocol)
        if problem:
            raise ConfigError(f"eval.retain_records: {cfg.eval.retain_records}: {problem}")


def count_steps(plan: Plan) -> int:
    """Return the optimizer steps of a run that trains to its end.

    A step is taken on each batch of `data.batch_size` samples, an epoch's last one with those that
    are left. Long samples count as their pieces. Neither devices nor the parts in which a batch is
    scored change the number. A run that `eval.stop_on` ends makes fewer.
    """
    data = plan.cfg.data
    encoder = make_encoder(plan)
    count = 0
    for sample in select_training_samples(plan.benchmark, data.train, data.request):
        count += len(split_into_pieces(encoder.encode(sample), data.max_tokens))
    return plan.cfg.trainer.max_epochs * math.ceil(count / data.batch_size)


def make_encoder(plan: Plan) -> Encoder:
    """Return the encoder that the run will train with, also where its tokenizer is yet to be made.

    A new model's tokenizer learns from the samples of the stage that makes it.
    """
    start, data = plan, plan.cfg.data
    while start.cfg.model.path in start.stages:
        start = start.stages[str(start.cfg.model.path)]
    if start.encoder is not None:
        tokenizer = start.encoder.tokenizer
    else:
        texts = list_tokenizer_texts(start.benchmark, start.cfg.data.prompts)
        tokenizer = models.load_tokenizer(start.cfg.model, texts)
    return Encoder(tokenizer, data.prompts, data.overlap)
