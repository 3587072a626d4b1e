"""tif sweep: make many runs over one configuration, then a table and a plot of them.

    tif sweep FILE.yaml [key=value ...] [jobs=N] [options]

    tif sweep experiment/methods_quickstart.yaml
    tif sweep experiment/methods_quickstart.yaml trainer.max_epochs=5
                              words after the file are added to every run
    tif sweep FILE.yaml seeds=[0]
                              one seed, whatever the file says
    tif sweep FILE.yaml jobs=4
                              four runs at a time, each in a process (and on a GPU) of its own

    --list          print the runs with their numbers
    --count         print how many runs there are
    --table         show the table of the runs that are finished
    --index N       make run number N alone, as a task of an array job (slurm/sweep.sbatch)
    --stage NAME    make the stages of that name that the runs need, as target

The file says what to run:

    name: methods                      # runs go to runs/methods/<run>/seed<seed>
    base: [quickstart.yaml]            # words of tif fit that all runs share
    seeds: [0, 1, 2]
    runs:                              # by name, the words that each run adds
      tpo: []
      npo: [loss/npo.yaml, optimizer.lr=1e-4]
    grid:                              # all combinations, for each of `runs`
      loss.beta: [0.1, 0.3]
    epoch: last                        # shown: the best (default) or the last
    columns: [forget/quality, utility/kept]  # of the table, runs as here
    plots:                             # [x, y]: a point a run; x may be a key
      trade_off: [utility/kept, forget/quality]
    paths:                             # [x, y]: each run over its epochs
      cost: [words/unwanted, retain/kl]

All configurations are checked before the first run. Finished runs are not made again, an
unfinished one continues from its last checkpoint, stages (target and retain models) are shared. A
run whose loss is not finite is named and left out. After each run its folder <run.folder>/<name>
gets table.md and results.json, and at the end report.html, which compares the runs, and
figures/<name>.svg and .png of each plot.
Exit code 1 also where a run's loss was not finite. A sweep that was stopped goes on with the same
command.
"""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tif.config.command import Command
from tif.config.errors import ConfigError, brief
from tif.config.schema import Config
from tif.sweep.sweep_file import SweepRun, load_configs, read_sweep, read_view
from tif.utils import command_line, distributed


def sweep(options: Namespace) -> int:
    """Make the runs, or list or count them as the options say; return the exit code."""
    jobs = _number("jobs", options.jobs or "1", 1, 10_000)
    runs = read_sweep(options.words)
    configs, view = load_configs(runs), read_view(options.words, runs)
    if options.count:
        print(len(runs))
        return 0
    if options.list:
        _list_runs(runs)
        return 0
    chosen = configs
    if options.index is not None:
        chosen = [configs[_number("--index", options.index, 0, len(configs) - 1)]]
    with command_line.loading():
        from tif.reports.sweep import show_results
        from tif.sweep.run import (
            check_plans,
            find_finished_run,
            run_in_order,
            stage_configs,
            update_results,
        )
        from tif.utils.terminal import quiet_libraries
    if options.table:
        if not any(map(find_finished_run, configs)):
            folder = Path(configs[0].run.folder) / configs[0].run.name.rsplit("/", 2)[0]
            problem = f"{folder}: no finished run with the settings of this file"
            hint = f"tif sweep makes them, tif report {folder} shows what is there"
            raise ConfigError(f"{problem}; {hint}")
        show_results(*update_results(configs, view))
        return 0
    if options.stage:
        chosen = stage_configs(chosen, options.stage)
    trainer = chosen[0].trainer
    exit_code = distributed.launch(
        "tif.sweep", options.argv, trainer.devices, trainer.accelerator
    )
    if exit_code is not None:
        return exit_code
    quiet_libraries()
    if options.index is None:  # else the plan of the one run is checked when it starts
        check_plans(configs)
    if jobs > 1 and len(chosen) > 1 and not options.stage:
        from tif.sweep.jobs import run_in_processes

        return run_in_processes(chosen, options.words, jobs, view)
    return run_in_order(chosen, configs, view)


def _list_runs(runs: Sequence[SweepRun]) -> None:
    """Print the number, the name and the command of each run."""
    for number, run in enumerate(runs):
        name = f"{run.variant}/seed{run.seed}".lstrip("/")
        words = shlex.join(run.words)
        line = f"{number} {name}: tif fit {words} run.seed={run.seed}"
        command_line.print_text(line)


def _number(name: str, word: str, low: int, high: int) -> int:
    """Return the word as a number from low to high; else raise ConfigError."""
    is_number = word.isascii() and word.isdigit() and len(word) < 20
    if not is_number or not low <= int(word) <= high:
        raise ConfigError(f"{name}: want a number from {low} to {high}, got {brief(word)}")
    return int(word)


COMMAND = Command(
    "sweep", __doc__, sweep, Config, flags=("--list", "--count", "--table"),
    values={"--index": "store", "--stage": "store"}, keys=("jobs",), needs_words=True,
    next_step="the same command goes on with what is missing",
)
main = COMMAND.main
