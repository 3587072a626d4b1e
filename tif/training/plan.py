"""A run's plan: its configuration checked against the disk, and what the checks had to read anyway.

Nothing is written and no weights load. Called by `training/run`, `sweep` (all runs are checked
before the first) and `tif identify`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from tif import identifiers
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.loss import make_loss
from tif.config.schema import Config, Identifier, Run
from tif.data import benchmarks
from tif.data.samples import Benchmark, fingerprint
from tif.identifiers import stored_spans
from tif.models import load as models
from tif.records import files as records
from tif.training import checks, run_folders, stages


@dataclasses.dataclass
class Plan:
    """What a run is made from.

    Attributes:
        cfg: the run's configuration; of a stage, that of its own run.
        benchmark: the samples; with their unwanted words, where those cost no time.
        stage: the name of the stage that this is a plan of; None = a run.
        stages: plans of the runs that must exist first, by name.
        family: of the model ("llama"), as its records name it.
        retain_records: the retain model's records, where they exist already.
        other_benchmarks: what is evaluated besides, by name.
    """

    cfg: Config
    benchmark: Benchmark
    stage: str | None = None
    stages: dict[str, "Plan"] = dataclasses.field(default_factory=dict)
    family: str | None = None
    retain_records: records.Evaluation | None = None
    other_benchmarks: dict[str, Benchmark] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of a stage's run; a run itself may get a numbered one beside it."""
        return Path(self.cfg.run.folder) / self.cfg.run.name


def plan_run(cfg: Config) -> Plan:
    """Return the plan of a run.

    Raises:
        ConfigError: With all problems, one a line.
    """
    problems: list[str] = []
    plan = Plan(cfg, Benchmark("", (), (), {}))
    steps = [_check_folder, _check_trainer_and_loss, _check_model, _read_other_benchmarks]
    steps.append(_read_retain_records)
    with collect_problems(problems):
        plan.benchmark = benchmarks.read_benchmark(cfg.data)
        steps += [_identify_words, _check_samples]
    for step in steps:
        with collect_problems(problems):
            step(plan)
    if not problems:  # stages share most keys: their problems would be the same
        problems += _plan_stages(plan)
    if not problems:
        with collect_problems(problems):
            _check_layer(plan)
    if plan.benchmark.name:
        with collect_problems(problems):
            _check_comparison(plan)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return plan


def plan_stage(cfg: Config, name: str) -> Plan:
    """Return the plan of one of a run's stages.

    Args:
        cfg: the run's configuration.
        name: of the stage.

    Raises:
        ConfigError: As `plan_run`, or if there is no such stage.
    """
    return _place_stage(plan_run(_stage_config(config.stage(cfg, name))), name)


def plan_reinforced_model(plan: Plan) -> Plan:
    """Return the plan of the stage that learns the forget set more, for loss.forget=whp.

    It starts from the run's model, which exists already, and has the run's optimizer.
    """
    cfg = plan.cfg
    finetuning = make_loss(forget="ce", on="all", preserve="none", retain="none")
    cfg = dataclasses.replace(
        cfg,
        loss=finetuning,
        trainer=dataclasses.replace(cfg.trainer, max_epochs=cfg.loss.whp_epochs),
        stages={},
    )
    return _place_stage(Plan(_stage_config(cfg), plan.benchmark), "reinforced")


def with_model(plan: Plan, path: Path) -> Plan:
    """Return the plan with the model at `path`, in place of the stage that made it."""
    model = dataclasses.replace(plan.cfg.model, path=str(path))
    return dataclasses.replace(plan, cfg=dataclasses.replace(plan.cfg, model=model))


def _stage_config(cfg: Config) -> Config:
    """Return the configuration as a stage's: exported as one plain model, never evaluated."""
    lora = dataclasses.replace(cfg.model.lora, merge=True)
    return dataclasses.replace(
        cfg,
        eval=dataclasses.replace(cfg.eval, enabled=False),
        run=dataclasses.replace(cfg.run, export=True, resume="auto"),
        model=dataclasses.replace(cfg.model, lora=lora),
    )


def _place_stage(plan: Plan, name: str) -> Plan:
    """Return the plan as that of a stage, whose folder follows from what decides its weights."""
    cfg, samples = plan.cfg, plan.benchmark
    folder = stages.stage_folder(
        Path(cfg.run.folder),
        name,
        deciding_keys(cfg),
        fingerprint((*samples.background, *samples.retain, *samples.forget)),
        cfg.model.path,
    )
    run = dataclasses.replace(cfg.run, name=folder.name, folder=str(folder.parent))
    return dataclasses.replace(plan, cfg=dataclasses.replace(cfg, run=run), stage=name)


def deciding_keys(cfg: Config) -> list[Any]:
    """Return the keys that decide about the weights of a stage with this configuration."""
    return stages.deciding_keys(
        cfg.run.seed, cfg.data, cfg.model, cfg.loss, cfg.optimizer, cfg.trainer
    )


def config_text(cfg: Config) -> str:
    """Return the text of config.yaml; its first line is the command that repeats the run."""
    run = dataclasses.replace(cfg.run, resume="auto")  # how the run was started is left out
    command = f"# python -m tif.fit {run.folder}/{run.name}/{run_folders.CONFIG}"
    return f"{command}\n{config.to_yaml(dataclasses.replace(cfg, run=run))}"


def find_finished_run(cfg: Config) -> Path | None:
    """Return the folder of a complete run of exactly this configuration, or None."""
    return run_folders.find_finished_run(cfg.run, config_text(cfg))


def wants_spans(cfg: Config) -> bool:
    """Return whether the run's loss tells unwanted from general words."""
    reads_words = cfg.loss.on == "uw" or cfg.loss.preserve != "none"
    return cfg.data.train == "forget" and reads_words


def wants_forget_quality(cfg: Config) -> bool:
    """Return whether the run computes forget quality."""
    return cfg.data.train == "forget" and cfg.eval.enabled and cfg.eval.forget_quality


def identifier_of(cfg: Config) -> Identifier:
    """Return section `identifier` with the models that it takes from section `model`."""
    return stored_spans.complete_identifier(cfg.identifier, cfg.model)


def identifier_stages(cfg: Config) -> tuple[str, ...]:
    """Return the names of the stages whose models the identifier asks."""
    return stored_spans.list_stages(identifier_of(cfg), tuple(cfg.stages))


def check_identifier(cfg: Config) -> None:
    """Raise ConfigError, one line a problem, if a model that the identifier asks is none."""
    try:
        identifiers.check_models(identifier_of(cfg), leave_out=tuple(cfg.stages))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_folder(plan: Plan) -> None:
    settings = plan.cfg.run
    run_folders.check_run_folder(settings, config_text(plan.cfg))
    if settings.resume in run_folders.NO_PATH:
        return
    checkpoint = Path(settings.resume).expanduser()
    run_folders.check_checkpoint(checkpoint)
    folder = checkpoint.parent.parent
    theirs = config.read(Config, [str(folder / run_folders.CONFIG)])
    difference = _first_difference(_keys_of_result(theirs), _keys_of_result(plan.cfg))
    if difference:
        key, theirs_value, ours_value = difference
        raise ConfigError(
            f"run.resume: the run {folder} has {key}={theirs_value}, this configuration "
            f"{ours_value}; want the same"
        )


def _keys_of_result(cfg: Config) -> dict[str, Any]:
    """Return the keys that change the numbers of a run: all but those of its folder."""
    return dataclasses.asdict(dataclasses.replace(cfg, run=Run(seed=cfg.run.seed)))


def _first_difference(theirs: Any, ours: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return key and values of the first entry that differs; None where all are equal."""
    if theirs == ours:
        return None
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        for name in theirs:
            inner_key = f"{key}.{name}".lstrip(".")
            difference = _first_difference(theirs[name], ours[name], inner_key)
            if difference:
                return difference
    return key, theirs, ours


def _check_trainer_and_loss(plan: Plan) -> None:
    cfg = plan.cfg
    processes = checks.count_processes(cfg.trainer)
    checks.check_parts(cfg.loss, cfg.data, processes)
    checks.check_reference(cfg.loss, cfg.data.train, cfg.model.reference)


def _check_model(plan: Plan) -> None:
    cfg = plan.cfg
    if cfg.model.path not in cfg.stages:
        plan.family = models.check_model(cfg.model)
        checks.check_tokenizer(cfg.model, cfg.data)


def _read_other_benchmarks(plan: Plan) -> None:
    settings = plan.cfg.eval
    if not settings.enabled:
        return
    checks.check_lm_eval(settings.lm_eval_tasks(), settings.lm_eval.folder)
    for name in settings.data_benchmarks():
        plan.other_benchmarks[name] = benchmarks.read_evaluation_sets(name, settings)


def _read_retain_records(plan: Plan) -> None:
    path = plan.cfg.eval.retain_records
    if wants_forget_quality(plan.cfg) and path not in plan.cfg.stages:
        plan.retain_records = checks.read_retain_records(str(path))


def _identify_words(plan: Plan) -> None:
    cfg = plan.cfg
    if not wants_spans(cfg):
        return
    check_identifier(cfg)
    if cfg.identifier.kind not in identifiers.COSTLY_KINDS:  # those load models, after all checks
        forget = identifiers.identify(cfg.identifier, plan.benchmark.forget)
        plan.benchmark = dataclasses.replace(plan.benchmark, forget=forget)


def _check_samples(plan: Plan) -> None:
    checks.check_samples(plan.benchmark, plan.cfg.data.train, plan.cfg.loss)


def _plan_stages(plan: Plan) -> list[str]:
    """Plan the stages that the run needs; return their problems, each once."""
    cfg = plan.cfg
    names = [cfg.model.path]
    if wants_forget_quality(cfg):
        names.append(cfg.eval.retain_records)
    if wants_spans(cfg):
        names += identifier_stages(cfg)
    reported: set[str] = set()
    problems = []
    for name in dict.fromkeys(names):
        if name not in cfg.stages:
            continue
        stage_problems: list[str] = []
        with collect_problems(stage_problems):
            plan.stages[str(name)] = plan_stage(cfg, str(name))
        for line in stage_problems:
            if line not in reported:
                problems.append(f"stages.{name}.{line}")
        reported.update(stage_problems)
    if cfg.model.path in plan.stages:
        plan.family = plan.stages[str(cfg.model.path)].family
    return problems


def _check_layer(plan: Plan) -> None:
    stage = plan.stages.get(str(plan.cfg.model.path))
    checks.check_hidden_layer(plan.cfg.loss, stage.cfg.model if stage else plan.cfg.model)


def _check_comparison(plan: Plan) -> None:
    if not wants_forget_quality(plan.cfg):
        return
    checks.check_compared_sets(plan.benchmark, plan.cfg.data.forget_quality_name())
    if plan.retain_records:
        checks.check_retain_records(
            plan.retain_records, plan.benchmark, plan.cfg.eval, plan.family
        )
