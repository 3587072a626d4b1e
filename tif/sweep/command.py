"""Make many runs over one configuration, then a table and a plot of them.

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

Exit code: 0 done, 1 a run failed (its loss was not finite, a file could not be written), 2 wrong
input (one line a problem, before weights load), 128 + N stopped by signal N: the same command
continues.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tif.config.errors import ConfigError
from tif.sweep.sweep_file import load_configs, read_sweep, read_view
from tif.utils import distributed
from tif.utils.command_line import (
    Parser,
    print_error,
    print_help,
    print_text,
    report_os_error,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parse(words)
        if not words or options.help or options.h:
            print_help(__doc__ or "")
            return 0 if words else 2
        return _run(options, words)
    except ConfigError as error:
        print_error(error)
        return 2
    except Exception as error:
        return report_os_error(error, "the same command goes on with what is missing")


def _run(options: argparse.Namespace, all_words: Sequence[str]) -> int:
    """Do what the options say and return the exit code."""
    runs = read_sweep(options.words)
    configs, view = load_configs(runs), read_view(options.words, runs)
    if options.count:
        print(len(runs))
        return 0
    if options.list:
        for number, run in enumerate(runs):
            name = f"{run.variant}/seed{run.seed}".lstrip("/")
            words = shlex.join(run.words)
            print_text(f"{number} {name}: tif fit {words} run.seed={run.seed}")
        return 0
    chosen = configs
    if options.index is not None:
        chosen = [configs[_number("--index", options.index, 0, len(configs) - 1)]]

    # torch and transformers load only now, so that the answers above come at once.
    from tif.reports.sweep import show_results
    from tif.sweep.run import check_plans, run_in_order, stage_configs, update_results
    from tif.training.plan import find_finished_run
    from tif.utils.terminal import quiet_libraries

    if options.table:
        if not any(map(find_finished_run, configs)):
            folder = Path(configs[0].run.folder) / configs[0].run.name.rsplit("/", 2)[0]
            line = f"{folder}: no finished run with the settings of this file; tif sweep makes them"
            print_error(f"{line}, tif report {folder} shows what is there")
            return 2
        show_results(*update_results(configs, view))
        return 0
    if options.stage:
        chosen = stage_configs(chosen, options.stage)
    trainer = chosen[0].trainer
    exit_code = distributed.launch("tif.sweep", all_words, trainer.devices, trainer.accelerator)
    if exit_code is not None:
        return exit_code
    quiet_libraries()
    if options.index is None:  # else the plan of the one run is checked when it starts
        check_plans(configs)
    if options.jobs > 1 and len(chosen) > 1 and not options.stage:
        from tif.sweep.jobs import run_in_processes

        return run_in_processes(chosen, options.words, options.jobs, view)
    return run_in_order(chosen, configs, view)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; `words` in it are those of the sweep: its file and key=value."""
    parser = Parser("tif sweep")
    parser.add_argument("words", nargs="*")
    for flag in ("--list", "--count", "--table", "--help", "-h"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--index")
    parser.add_argument("--stage")
    options = parser.parse_intermixed_args(words)
    options.jobs = 1
    for word in list(options.words):
        if word.startswith("jobs="):
            options.words.remove(word)
            options.jobs = _number("jobs", word.removeprefix("jobs="), 1, 10_000)
    return options


def _number(name: str, word: str, low: int, high: int) -> int:
    """Return the word as a number from low to high; else raise ConfigError."""
    if not word.isdigit() or not low <= int(word) <= high:
        raise ConfigError(f"{name}: want a number from {low} to {high}, got {word!r}")
    return int(word)
