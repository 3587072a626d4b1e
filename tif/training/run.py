"""Make runs: from a configuration to a finished run folder, with the stages that it needs.

Called by `tif fit`, `sweep` and `tif identify` (whose models may be stages).
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tif import identifiers
from tif.config.errors import ConfigError
from tif.config.presets import data_name, method_name, model_name
from tif.config.schema import Config
from tif.data.samples import Sample
from tif.identifiers import span_cache
from tif.identifiers.registration import get_kind
from tif.identifiers.span_cache import RUN_SPANS
from tif.identifiers.span_file import write_spans
from tif.metrics import overall
from tif.records import files as records
from tif.records import run_folder
from tif.records.run_folder import Seconds, add_times, measured, read_times
from tif.records.types import Evaluation
from tif.training import plan as planning
from tif.training import resume
from tif.training.checkpoints import Preempted
from tif.training.plan import Plan, count_steps
from tif.training.resume import RunIdentity
from tif.training.retain_model import retain_model_records
from tif.training.stages import explain_new_stage, list_further_stages
from tif.training.train import train
from tif.utils import distributed, interrupts
from tif.utils.command_line import print_error, report_os_error
from tif.utils.files import DamagedFile, remove
from tif.utils.terminal import console, literal, print_line, quiet_libraries, silence


def run(cfg: Config, preset: str = "") -> Path:
    """Do all that a configuration asks for; return the folder of the run, or of `cfg.stage`.

    The first line names `preset`, the files that the configuration comes from; notes on the data
    follow it.

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
    for line in (describe_start(plan, preset), *plan.benchmark.notes):
        print_line(line)
    return make_stage(plan) if cfg.stage else unlearn(plan)


def describe_start(plan: Plan, preset: str) -> str:
    """Return a run's first line.

    Args:
        plan: of the run, or of the stage that is made alone.
        preset: the files and the model's preset that its configuration comes from; "" = unnamed.
    """
    cfg, model = plan.cfg, plan.cfg.model
    start = model_name(cfg) if model.path in plan.stages else model.path
    if start in (None, "new"):
        start = f"a new {model.init.get('model_type', 'Llama')}"
    if model.path in plan.stages:
        start += f" (stage {model.path})"
    method = f"{method_name(cfg.loss, cfg.data.train)} on {data_name(cfg)}"
    steps = count_steps(plan)
    chat = ["questions in its chat template"] if cfg.data.prompts.is_chat else []
    parts = [f"model: {start}", *chat, f"method: {method}", f"{steps:,} optimizer steps planned"]
    return ", ".join([f"preset: {preset}", *parts] if preset else parts)


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
    run = resume.identify_run(plan.cfg)

    def start() -> Path | None:
        checkpoint = None
        if run_folder.has_config(folder, run.config_text):
            checkpoint = resume.find_newest_checkpoint(folder, run)
        elif why := explain_new_stage(plan.cfg, folder):
            console.print(f"{title}: {why}", soft_wrap=True)
        _start_run(title, run, count_steps(plan), folder, checkpoint)
        return checkpoint

    def is_made() -> bool:
        if not run_folder.is_finished(folder):
            return False
        damage = run_folder.find_damaged_model(folder)
        if damage:
            console.print(f"{damage}: {title} is made again", soft_wrap=True)
            for name in (run_folder.SUMMARY_FILE, "checkpoints"):
                remove(folder / name)
        return damage is None

    folder.parent.mkdir(parents=True, exist_ok=True)
    with distributed.locked_on_first_rank(f"{folder}.lock", title):
        if distributed.run_on_first_rank(is_made):
            console.print(f"{title}: {folder}", literal("(made before)", "dim"), soft_wrap=True)
            return folder
        train(plan, run, folder, None, distributed.run_on_first_rank(start), {})
        if distributed.is_first_rank():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


@dataclasses.dataclass
class Inputs:
    """What must exist before a run trains; each part is made by a step of `list_steps`.

    Attributes:
        plan: of the run; with its start model and its unwanted words once they are made.
        stages: folders of the stages' runs, by name.
        retain: the retain model's records.
        seconds: how long each step took, by name.
    """

    plan: Plan
    stages: dict[str, Path] = dataclasses.field(default_factory=dict)
    retain: Evaluation | None = None
    seconds: Seconds = dataclasses.field(default_factory=dict)


def unlearn(plan: Plan) -> Path:
    """Return the folder of a finished run, after everything that it needs is made."""
    inputs = Inputs(plan, retain=plan.retain_records)
    for make in list_steps(plan):
        make(inputs)
    cfg = plan.cfg  # names stages by their names, so that the run is found and moved with them
    run = resume.identify_run(cfg)
    with distributed.entered_on_first_rank(resume.claim_run_folder(cfg.run, run)) as claim:
        folder, checkpoint = claim
        distributed.run_on_first_rank(lambda: _start_run_folder(inputs, run, folder, checkpoint))
        train(inputs.plan, run, folder, inputs.retain, checkpoint, inputs.stages)
    return folder


def list_steps(plan: Plan) -> Iterator[Callable[[Inputs], None]]:
    """Yield what a run needs before it trains, in order: models, unwanted words, records."""
    cfg = plan.cfg
    names = list(plan.stages)
    if planning.wants_spans(cfg) and get_kind(cfg.identifier.kind).is_costly:
        # First, with no more stages than needed: a missing server shows before hours of training.
        first = planning.identifier_stages(cfg)
        names = [*first, *(name for name in names if name not in first)]
        yield from (partial(make_named_stage, name=name) for name in first)
        yield identify_unwanted_words
        names = names[len(first) :]
    yield from (partial(make_named_stage, name=name) for name in names)
    if planning.wants_forget_quality(cfg):
        yield evaluate_retain_model
    if cfg.model.path in plan.stages:
        yield start_from_stage
    yield from (partial(make_further_stage, name=name) for name in list_further_stages(cfg.loss))


def make_named_stage(inputs: Inputs, name: str) -> None:
    """Make a stage of the run."""
    folder = make_stage(inputs.plan.stages[name])
    inputs.stages[name] = folder
    inputs.seconds[f"stage {name}"] = sum(read_times(folder).values())


def identify_unwanted_words(inputs: Inputs) -> None:
    """Label the forget samples by an identifier that asks models, unless its spans are stored."""
    cfg, forget = inputs.plan.cfg, inputs.plan.benchmark.forget
    identifier = span_cache.with_stage_models(planning.identifier_of(cfg), inputs.stages)
    folder = Path(cfg.run.folder) / "spans"

    def identify() -> tuple[Sample, ...]:
        return span_cache.identify_once(identifier, forget, cfg.data.prompts, folder)

    with measured(inputs.seconds, "identification"):
        labelled = distributed.run_on_first_rank(identify)
    file = span_cache.span_path(identifier, forget, cfg.data.prompts, folder)
    benchmark = dataclasses.replace(inputs.plan.benchmark, forget=labelled)
    inputs.plan = dataclasses.replace(inputs.plan, benchmark=benchmark, span_file=file)


def evaluate_retain_model(inputs: Inputs) -> None:
    """Make the retain model's records, unless the plan has read them from a file."""
    cfg = inputs.plan.cfg
    if cfg.eval.retain_records in inputs.stages:
        folder = inputs.stages[cfg.eval.retain_records]
        model = str(folder / "model")
    elif cfg.eval.retain_model:
        folder, model = planning.retain_model_folder(cfg), cfg.eval.retain_model
        folder.mkdir(parents=True, exist_ok=True)
    else:
        return
    with measured(inputs.seconds, "retain model's evaluation"):
        inputs.retain = retain_model_records(inputs.plan, model, folder)


def start_from_stage(inputs: Inputs) -> None:
    """Let the run start from the model of a stage."""
    cfg = inputs.plan.cfg
    path = str(inputs.stages[str(cfg.model.path)] / "model")
    cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, path=path))
    inputs.plan = dataclasses.replace(inputs.plan, cfg=cfg)


def make_further_stage(inputs: Inputs, name: str) -> None:
    """Make a stage that trains the run's own model further."""
    inputs.stages[name] = make_stage(planning.plan_further_stage(inputs.plan, name))


def _start_run_folder(
    inputs: Inputs, run: RunIdentity, folder: Path, checkpoint: Path | None
) -> None:
    """Write what the run folder holds before the first step."""
    _start_run("run", run, count_steps(inputs.plan), folder, checkpoint, inputs.stages)
    if checkpoint is None:
        add_times(folder, inputs.seconds)
    cfg = inputs.plan.cfg
    if planning.wants_spans(cfg) and cfg.identifier.kind != "gold":  # those the data has
        settings = identifiers.describe_settings(planning.identifier_of(cfg), cfg.data.prompts)
        write_spans(folder / RUN_SPANS, inputs.plan.benchmark.forget, settings)
    if inputs.retain:
        # The run folder alone tells everything: also what the run was compared with.
        metrics = overall.aggregate(inputs.retain)
        records.write_evaluation(folder / run_folder.RETAIN_FOLDER, inputs.retain, metrics)


def _start_run(
    title: str, run: RunIdentity, steps: int, folder: Path, checkpoint: Path | None,
    stages: Mapping[str, Path] | None = None,
) -> None:  # fmt: skip
    origin = [literal(f"(goes on from {checkpoint.name})", "dim")] if checkpoint else []
    console.print(f"{title}: {folder}", *origin, soft_wrap=True)
    if checkpoint is None:
        remove(folder / run_folder.TIMES_FILE)  # of a run that starts over
    run_folder.start_run(folder, run.config_text, steps, stages)
