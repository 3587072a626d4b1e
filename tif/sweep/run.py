"""Make the runs of a sweep one after the other, and its results. Called by `tif.sweep.command`."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import filelock
from rich.markup import escape

from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.schema import Config
from tif.reports.sweep import show_results, write_results
from tif.sweep.sweep_file import Sweep, SweepRun
from tif.training import plan as planning
from tif.training import run as training
from tif.training import run_folders
from tif.training.stages import deciding_keys
from tif.utils import distributed
from tif.utils.hashing import hash_json
from tif.utils.terminal import console


def check_plans(sweep: Sweep, runs: Sequence[SweepRun]) -> None:
    """Check data, paths and models of every variant, with its first seed.

    Raises:
        ConfigError: With the problems of all variants, one a line, each with its name.
    """
    problems: list[str] = []
    for run in runs:
        if run.seed == sweep.seeds[0]:
            with collect_problems(problems, (ConfigError,), f"{run.variant.name}: "):
                planning.plan_run(run.cfg)
    if problems:
        raise ConfigError("\n".join(problems))


def stage_configs(configs: Sequence[Config], name: str) -> list[Config]:
    """Return a configuration for each different stage of that name, which makes only the stage."""
    by_content = {}
    for cfg in configs:
        stage = config.stage(cfg, name)
        content = hash_json([deciding_keys(stage), dataclasses.asdict(stage.data)])
        by_content[content] = dataclasses.replace(cfg, stage=name)
    return list(by_content.values())


def run_in_order(sweep: Sweep, configs: Sequence[Config], runs: Sequence[SweepRun]) -> int:
    """Make the runs or stages that are not there yet, and the sweep's results after each run.

    Args:
        sweep, runs: the results show all runs of the sweep together.
        configs: of the runs or stages to make.

    Returns:
        The exit code of the first run that failed, else 0.
    """
    exit_code = 0
    try:
        for number, cfg in enumerate(configs, 1):
            is_finished = not cfg.stage and planning.find_finished_run(cfg) is not None
            if distributed.is_first_rank():
                note = " [dim](made before)[/]" if is_finished else ""
                console.print(f"{number}/{len(configs)} {escape(cfg.run.name)}{note}")
            if not is_finished:
                code = training.attempt(functools.partial(training.run, cfg))
                if code > 128:  # stopped by a signal
                    return code
                exit_code = exit_code or code
            if distributed.is_first_rank() and not cfg.stage:
                update_results(sweep, runs)
    finally:
        distributed.finish()
    if len(configs) > 1 and distributed.is_first_rank() and not configs[0].stage:
        update_and_show_results(sweep, runs)
    return exit_code


def update_results(sweep: Sweep, runs: Sequence[SweepRun]) -> Path:
    """Write the results of the runs that are finished; processes that do so wait for each other.

    Returns:
        The sweep's folder.
    """
    sweep_folder = Path(runs[0].cfg.run.folder) / sweep.name
    sweep_folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(sweep_folder / run_folders.LOCK):
        folders: dict[str, list[Path]] = {variant.name: [] for variant in sweep.variants}
        for run in runs:
            folder = planning.find_finished_run(run.cfg)
            if folder:
                folders[run.variant.name].append(folder)
        write_results(sweep_folder, folders)
    return sweep_folder


def update_and_show_results(sweep: Sweep, runs: Sequence[SweepRun]) -> None:
    """Write the results of the runs that are finished and print their table."""
    show_results(update_results(sweep, runs))
