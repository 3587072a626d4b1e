"""A configuration checked against the disk, before weights load: data read, words identified, models found."""

import dataclasses
from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tif import identifiers, losses
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems, one_line
from tif.config.schema import Config
from tif.data.benchmarks import read_benchmark, read_evaluation_sets, select_training_samples
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark
from tif.evaluation import evaluate as evaluation
from tif.evaluation import muse_prompts as tasks
from tif.metrics import muse
from tif.models import load as models
from tif.records import comparability as matching
from tif.records import files as records
from tif.training import run_folders as runs
from tif.training import spans
from tif.utils import distributed


@dataclasses.dataclass
class Plan:
    """What a run is made from.

    Attributes:
        stages: plans of the runs that must exist first, by name.
        family: of the model, as its records say it.
        retain: the retain model's records, where they exist already.
        further: what is evaluated besides.
    """

    cfg: Config
    benchmark: Benchmark
    stages: dict[str, "Plan"] = dataclasses.field(default_factory=dict)
    family: str | None = None
    retain: records.Evaluation | None = None
    further: dict[str, Benchmark] = dataclasses.field(default_factory=dict)


def plan(cfg: Config) -> Plan:
    """Read the data and check every path; nothing is written and no weights load.

    Raises:
        ConfigError: With all problems found, one a line.
    """
    problems: list[str] = []
    try:
        found = Plan(cfg, read_benchmark(cfg.data))
    except ValueError as error:
        problems.append(str(error))
        found = Plan(cfg, Benchmark("", (), (), {}))
    _check_places(found, problems)
    if found.benchmark.name:
        _check_data(found, problems)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return found


def stage_plan(cfg: Config, name: str) -> Plan:
    """The plan of one of the config's stages: trained there, evaluated where their records are wanted.

    Raises:
        ConfigError: As `plan`, or if there is no such stage.
    """
    own = config.stage(cfg, name)
    run = dataclasses.replace(own.run, resume="auto")  # another's checkpoint is none of the stage's
    return plan(dataclasses.replace(own, eval=dataclasses.replace(own.eval, enabled=False), run=run))


def check_identifier(cfg: Config) -> None:
    """Stop before weights load where an identifier's model is none.

    Raises:
        ConfigError: One line a problem.
    """
    try:
        identifiers.check(spans.own_identifier(cfg), leave_out=tuple(cfg.stages))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def wants_forget_quality(cfg: Config) -> bool:
    """Whether the run computes forget quality."""
    return cfg.data.train == "forget" and cfg.eval.enabled and cfg.eval.forget_quality


def trainer_keys(cfg: Config) -> dict[str, Any]:
    """Section `trainer` as lightning.Trainer takes it."""
    keys = dataclasses.asdict(cfg.trainer)
    del keys["gradient_clip_val"]  # tif.module clips
    keys["devices"] = int(keys["devices"]) if keys["devices"].isdigit() else keys["devices"]
    if distributed.world_size() > 1:  # what started the processes has the last word
        keys["devices"] = distributed.local_world_size()
        keys["num_nodes"] = distributed.world_size() // keys["devices"]
    if keys["strategy"] == "fsdp2":
        keys["strategy"] = ModelParallelStrategy(data_parallel_size=distributed.world_size(), tensor_parallel_size=1)
    return keys


def _check_places(found: Plan, problems: list[str]) -> None:
    """What does not depend on the data: run folder, trainer, model, retain records."""
    cfg = found.cfg
    with collect_problems(problems):
        runs.check_folder(cfg)
        runs.check_resume(cfg)
    processes = 1
    with collect_problems(problems):
        processes = _check_trainer(cfg)
    with collect_problems(problems):
        _check_loss(cfg, processes)
    if cfg.model.path not in cfg.stages:
        with collect_problems(problems):
            found.family = models.check_model(cfg.model)
            _check_tokenizer(cfg)
    if cfg.eval.enabled and cfg.eval.benchmarks:
        with collect_problems(problems):
            found.further = _further(cfg)
    if wants_forget_quality(cfg) and cfg.eval.retain_records not in cfg.stages:
        with collect_problems(problems):
            found.retain = _read_records(str(cfg.eval.retain_records))


def _further(cfg: Config) -> dict[str, Benchmark]:
    """Return the benchmarks of `eval.benchmarks`; lm-eval's tasks are looked up."""
    if tasks := cfg.eval.lm_eval_tasks():
        from tif.evaluation import lm_eval_tasks as ability

        try:
            ability.check(tasks, cfg.eval.lm_eval.folder)
            ability.read(tasks, cfg.eval.lm_eval.folder)  # now, not after the stages
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return {name: read_evaluation_sets(name, cfg.eval) for name in cfg.eval.data_benchmarks()}


def _check_data(found: Plan, problems: list[str]) -> None:
    """What the data must fit to: unwanted words, stages, retain records."""
    cfg = found.cfg
    with collect_problems(problems):
        if spans.wanted(cfg):
            check_identifier(cfg)
            if cfg.identifier.kind not in identifiers.COSTLY:  # those load models, after all checks
                identified = identifiers.identify(cfg.identifier, found.benchmark.forget)
                found.benchmark = dataclasses.replace(found.benchmark, forget=identified)
        if not select_training_samples(found.benchmark, cfg.data.train):
            raise ConfigError(f"data.train: the {cfg.data.train} set of {found.benchmark.name} is empty")
        if losses.get_forget_term(cfg.loss).alternate and not all(s.prompt for s in found.benchmark.forget):
            raise ConfigError(f"loss.forget: {cfg.loss.forget} prefers other answers to questions, but "
                              f"{found.benchmark.name} has texts without a prompt; want another")  # fmt: skip
        if cfg.loss.retain != "none" and not found.benchmark.retain:
            raise ConfigError(f"loss.retain: {found.benchmark.name} has no retain samples; want loss.retain=none")
    if not problems:  # stages share most keys, and a problem told once is enough
        told: list[str] = []
        asked = spans.stages(cfg) if spans.wanted(cfg) else ()
        compared = [cfg.eval.retain_records] if wants_forget_quality(cfg) else []
        for name in dict.fromkeys((cfg.model.path, *compared, *asked)):
            if name in cfg.stages:
                own: list[str] = []
                with collect_problems(own):
                    found.stages[str(name)] = stage_plan(cfg, str(name))
                problems += [f"stages.{name}.{line}" for line in own if line not in told]
                told += own
    if cfg.model.path in found.stages:
        found.family = found.stages[str(cfg.model.path)].family
    if not problems:
        with collect_problems(problems):
            _check_layer(found)
    if wants_forget_quality(cfg) and (
        missing := [s for s in _compared(found.benchmark) if s not in found.benchmark.sets]
    ):
        problems.append(
            f"eval.forget_quality: {cfg.data.forget_quality_name()} needs {missing[0]}, which {found.benchmark.name} "
            "does not have (no holdout texts?); want eval.forget_quality=false"
        )
    elif found.retain:
        with collect_problems(problems):
            _check_records(found, found.retain)


def _check_layer(found: Plan) -> None:
    """The layer whose hidden states the loss reads is there."""
    layer, stage = losses.hidden_layer(found.cfg.loss), found.stages.get(str(found.cfg.model.path))
    if layer is None:
        return
    count = models.count_layers(stage.cfg.model if stage else found.cfg.model)
    if layer >= count:
        raise ConfigError(f"loss.rmu.layer: the model has layers 0 to {count - 1}, got {layer}")


def _check_trainer(cfg: Config) -> int:
    """Lightning takes the keys; the number of processes that they ask for."""
    try:
        trainer = L.Trainer(
            **trainer_keys(cfg),
            plugins=distributed.lightning_plugins(),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {one_line(error)}") from None
    return trainer.world_size


def _check_loss(cfg: Config, processes: int) -> None:
    """The reference serves the loss, and a batch can be shared out as the keys ask."""
    key, budget = losses.whole_batch_key(cfg.loss), cfg.data.max_tokens_per_batch
    if key and (budget or processes > 1):
        what = f"data.max_tokens_per_batch={budget}" if budget else f"{processes} processes"
        name, value = key.split("=")
        raise ConfigError(f"{name}: {value} looks at all samples of a batch together, which cannot be shared out for "
                          f"{what}; want another, or one process and null")  # fmt: skip
    if cfg.model.reference == "cached" and losses.required_reference(cfg.loss, cfg.data.train) == "model":
        raise ConfigError("model.reference: cached scores of the forget samples do not serve loss.forget="
                          f"{cfg.loss.forget} loss.retain={cfg.loss.retain}; want frozen or auto")  # fmt: skip


def _check_tokenizer(cfg: Config) -> None:
    if cfg.model.path is None:
        if cfg.data.template == "chat":
            raise ConfigError("data.template: chat, but a tokenizer made for model.init has no chat template")
        return
    try:
        tokenizer = models.load_tokenizer(cfg.model, ())
    except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
        reason = one_line(error)
        raise ConfigError(f"model.path: {cfg.model.path}: no tokenizer that can be loaded ({reason})") from None
    Encoder(tokenizer, cfg.data.template, cfg.data.overlap)


def _read_records(path: str) -> records.Evaluation:
    try:
        return records.read(path)
    except (OSError, ValueError) as error:
        wanted = "want the eval folder of a retain model's run or a stage's name"
        raise ConfigError(f"eval.retain_records: {path}: {wanted} ({one_line(error)})") from None


def _check_records(found: Plan, retain: records.Evaluation) -> None:
    """Refuse now what forget quality would refuse after the first evaluation."""
    own, asking = found.benchmark, found.cfg.eval
    used = evaluation.cut(own.sets, asking, own.tasks)
    sets = {
        name: records.RecordSet(name, tuple(records.Record(s.id, s.prompt, s.answer, 0.0, None) for s in used[name]))
        for name in _compared(own)
    }
    rules = tasks.PROTOCOL if own.tasks else asking.protocol
    expected = records.Evaluation("", sets, found.family, {"name": rules})
    if problem := matching.mismatch(expected, retain, _compared(own)):
        raise ConfigError(f"eval.retain_records: {found.cfg.eval.retain_records}: {problem}")


def _compared(benchmark: Benchmark) -> tuple[str, ...]:
    """The sets that are compared with the retain model's."""
    return muse.COMPARED if benchmark.tasks else ("forget",)
