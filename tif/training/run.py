"""Make a run: from a configuration to a finished run folder.

From here to the first optimizer step: `run` walks the steps of `training/inputs` and gives the
folder to `training/train`, which prepares the policy (`training/prepare`) and lets Lightning call
`training_step` in `training/module`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import ConfigError
from tif.config.presets import data_name, method_name, model_name
from tif.config.schema import Config
from tif.training import plan as planning
from tif.training import resume
from tif.training.checkpoints import Preempted
from tif.training.inputs import list_steps, make_stage
from tif.training.plan import Plan, count_steps
from tif.training.train import train
from tif.utils import distributed, interrupts
from tif.utils.command_line import print_error, report_os_error
from tif.utils.files import DamagedFile
from tif.utils.terminal import print_line, quiet_libraries, silence
from tif.utils.tested_versions import describe_departures, read_departures


def run(
    cfg: Config, preset: str = "", steps_after: Sequence[Callable[[Config, Path], None]] = ()
) -> Path:
    """Do all that a configuration asks for; return the folder of the run, or of `cfg.stage`.

    The first line names `preset`, the files that the configuration comes from; notes on the data
    follow it. `steps_after` are called one after the other with the finished run, not with a stage.

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
    departures = describe_departures(read_departures())
    lines = [describe_start(plan, preset), *plan.benchmark.notes]
    for line in [*lines, departures] if departures else lines:
        print_line(line)
    if cfg.stage:
        return make_stage(plan)
    folder = unlearn(plan)
    for step in steps_after:
        step(cfg, folder)
    return folder


def unlearn(plan: Plan) -> Path:
    """Return the folder of a finished run, after everything that it needs is made."""
    cfg = plan.cfg  # names stages by their names, so that the run is found and moved with them
    for complete in list_steps(plan):
        complete(plan)
    with distributed.entered_on_first_rank(resume.claim_run_folder(cfg)) as (folder, checkpoint):
        train(plan, folder, checkpoint, cfg)
    return folder


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
