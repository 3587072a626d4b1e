"""Make the runs of a sweep one after the other, and its results. Called by `tif.sweep.command`."""

import contextlib
import dataclasses
import glob
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock

from tif.audit.run import audit_finished_run
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.schema import Config
from tif.evaluation.prompt_format import resolve_template
from tif.records.run_folder import evaluation_rows, has_config, is_finished
from tif.reports.html.comparison import write_comparison
from tif.reports.html.figures import FOLDER, write_figures
from tif.reports.html.run_report import FILE_NAME
from tif.reports.summary import retain_row
from tif.reports.sweep import View, show_results, write_results
from tif.reports.sweep_plots import draw_sweep
from tif.training import plan as planning
from tif.training import resume
from tif.training import run as training
from tif.training.stages import deciding_keys
from tif.utils import distributed
from tif.utils.files import DamagedFile, remove_unfinished
from tif.utils.hashing import hash_json
from tif.utils.terminal import console, literal


def check_plans(configs: Sequence[Config]) -> None:
    """Check data, paths and models of every variant, with its first seed.

    A run that starts from the model of a run before it in the file is checked when it starts.

    Raises:
        ConfigError: With the problems of all variants, one a line, each with its name.
    """
    problems: list[str] = []
    variants: set[str] = set()
    models: set[str] = set()  # which the sweep will have made
    for cfg in configs:
        variant = _variant(cfg)
        needs_earlier_run = str(cfg.model.path) in models
        models.add(f"{cfg.run.folder}/{cfg.run.name}/model")
        if variant not in variants and not needs_earlier_run:
            variants.add(variant)
            with collect_problems(problems, (ConfigError,), f"{variant}: "):
                planning.plan_run(cfg)
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


def run_in_order(
    chosen: Sequence[Config], configs: Sequence[Config], view: View | None = None
) -> int:
    """Make the missing runs or stages, and update the sweep's results after each run.

    Runs that another process is making come last: this process waits for them.

    Args:
        chosen: the runs or stages to make.
        configs: of all runs of the sweep; the results show them together.
        view: what the sweep's file wants shown.

    Returns:
        The exit code of the first run that failed, else 0.
    """
    exit_code = 0
    makes_runs = not chosen[0].stage
    tasks = list(enumerate(chosen, 1))
    try:
        for wait in (False, True):
            busy = []
            for number, cfg in tasks:
                with _locked_run(cfg, wait) as is_free:
                    if is_free:
                        code = _make_unless_finished(cfg, f"{number}/{len(chosen)}")
                if not is_free:
                    busy.append((number, cfg))
                    continue
                if code > 128:  # stopped by a signal
                    return code
                exit_code = exit_code or code
                if makes_runs and distributed.is_first_rank():
                    update_results(configs, view)
            tasks = busy
    finally:
        distributed.finish()
    if len(chosen) > 1 and makes_runs and distributed.is_first_rank():
        finish_sweep(configs, view)
    return exit_code


def finish_sweep(configs: Sequence[Config], view: View | None = None) -> None:
    """Show the results of the runs that are finished, and write the report that compares them."""
    folder, results, damaged = update_results(configs, view)
    show_results(folder, results, damaged)
    folders = _group_finished(configs)
    runs = [run for run in map(find_finished_run, configs) if run is not None]
    if runs and not damaged:
        path = folder / FILE_NAME
        charts = write_comparison(runs, path, folder.name)
        charts += draw_sweep(folders, results, view) if view else []
        write_figures(folder / FOLDER, charts)
        console.print(f"see it: open {shlex.quote(str(path))}", soft_wrap=True)


def _group_finished(configs: Sequence[Config]) -> dict[str, list[Path]]:
    """Return the folders of the finished runs by variant, one for each seed."""
    folders: dict[str, list[Path]] = {_variant(cfg): [] for cfg in configs}
    for cfg in configs:
        run_folder = find_finished_run(cfg)
        if run_folder:
            folders[_variant(cfg)].append(run_folder)
    return folders


def _locked_run(cfg: Config, wait: bool) -> AbstractContextManager[bool]:
    """Hold a run's lock in the block, so that no other sweep makes it; stages lock themselves."""
    if cfg.stage is not None:
        return contextlib.nullcontext(True)
    folder = Path(cfg.run.folder) / cfg.run.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    return distributed.locked_on_first_rank(f"{folder}.lock", cfg.run.name, wait)


def is_made_elsewhere(cfg: Config) -> bool:
    """Return whether another process makes the run now."""
    with _locked_run(cfg, wait=False) as is_free:
        return not is_free


def _make_unless_finished(cfg: Config, label: str) -> int:
    """Make a run or a stage; return its exit code."""
    is_finished = not cfg.stage and find_finished_run(cfg) is not None
    if distributed.is_first_rank():
        note = [literal("(made before)", "dim")] if is_finished else []
        console.print(f"{label} {cfg.run.name}", *note)
    if is_finished:
        return 0
    return training.attempt(lambda: training.run(cfg, steps_after=[audit_finished_run]))


def update_results(
    configs: Sequence[Config], view: View | None = None
) -> tuple[Path, dict[str, Any], list[str]]:
    """Write the results of the runs that are finished.

    Processes that do so at the same time wait for each other.

    Returns:
        The sweep's folder, its results, and a line for each run that is damaged and left out.
    """
    folder = Path(configs[0].run.folder) / configs[0].run.name.rsplit("/", 2)[0]
    folder.mkdir(parents=True, exist_ok=True)
    damaged: list[str] = []
    with filelock.FileLock(folder / resume.LOCK):
        remove_unfinished(folder, below=False)
        folders: dict[str, list[Path]] = {}
        for variant, finished in _group_finished(configs).items():
            folders[variant] = []
            for run_folder in finished:
                with collect_problems(damaged, (DamagedFile,), "left out: "):
                    evaluation_rows(run_folder)
                    retain_row(run_folder)
                    folders[variant].append(run_folder)
        return folder, write_results(folder, folders, view), damaged


def _variant(cfg: Config) -> str:
    """Return the run's name without the sweep's and the seed."""
    return cfg.run.name.split("/")[-2]


def find_finished_run(cfg: Config) -> Path | None:
    """Return the folder of a complete run of exactly this configuration, or None."""
    path, text = Path(cfg.run.folder) / cfg.run.name, resume.config_text(resolve_template(cfg))
    for folder in sorted(path.parent.glob(f"{glob.escape(path.name)}*")):
        if has_config(folder, text) and is_finished(folder):
            return folder
    return None
