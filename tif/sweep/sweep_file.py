"""Read a sweep file and list the runs that it describes.

Called by `tif.sweep.command`. Reads configurations only: no data, no model.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.config import load as config
from tif.config.errors import ConfigError, brief, collect_problems
from tif.config.keys import list_keys
from tif.config.run import describe_name, is_name
from tif.config.schema import Config, key
from tif.reports.sweep import View

KEYS = frozenset(name for name, _, _ in list_keys(Config()))
MOST_RUNS = 1000  # the configuration of each is read, about 30 ms, before the first is made


@dataclasses.dataclass
class SweepFile:
    """The keys of a sweep file."""

    name: str | None = key(None, "the sweep's folder is <run.folder>/<name>; null = file's name")
    base: list[str] = key([], "words of tif fit that all runs share")
    seeds: list[int] = key([0], "values of run.seed")
    runs: dict[str, list[str]] = key({}, "by name, the words that each run adds")
    grid: dict[str, list[Any]] = key({}, "by key, the values to combine")
    epoch: str = key("last", "what columns and plots show: the last epoch, or the one that "
        "eval.best chose, on the half of the questions that did not", choices=("best", "last"))
    columns: list[str] = key([], "metrics of the table; [] = forget quality and utility, at both "
        "epochs, best runs first")
    plots: dict[str, list[str]] = key({}, "by name, [x, y]: y is a metric, x a metric or a key; a "
        "point a run, joined along x, or along the last key of grid")
    paths: dict[str, list[str]] = key({}, "by name, [x, y], two metrics: each run over its epochs")

    def find_problems(self) -> list[str]:
        """Return problems between keys, one line each."""
        problems = []
        for section, pictures in (("plots", self.plots), ("paths", self.paths)):
            for name, axes in pictures.items():
                if not is_name(name):
                    problems.append(f"{section}: {describe_name()}, got {brief(name)}")
                if section == "paths" and name in self.plots:
                    problems.append(f"paths.{name}: plots has one of that name; want another")
                is_key = section == "plots" and axes and axes[0] in KEYS
                metrics = axes[1:] if is_key else axes
                if len(axes) != 2 or not all("/" in metric for metric in metrics):
                    problems.append(f"{section}.{name}: want [x, y], metrics as utility/kept"
                        f"{' (x may be a key)' if section == 'plots' else ''}, got {axes}")
        for metric in self.columns:
            if "/" not in metric:
                problems.append(f"columns: want metrics as utility/kept, got {metric}")
        if not self.runs and not self.grid:
            problems.append("runs: nothing to run; want runs or grid")
        if not self.seeds:
            problems.append("seeds: want at least one")
        return problems


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run: the words of `tif fit` that make it are `words` and run.seed=`seed`."""

    sweep: str
    variant: str  # the run's name, the same for all seeds
    seed: int
    words: tuple[str, ...]
    entry: str = ""  # of `runs`
    grid: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # its values


def read_sweep(words: Sequence[str]) -> list[SweepRun]:
    """Return the runs of a sweep; those of a variant stand together.

    Args:
        words: the sweep file's name, then seeds=[...] in the place of the file's, and words that
            are added to every run.

    Raises:
        ConfigError: One line for each problem.
    """
    if not words or not config.is_file(words[0]):
        raise ConfigError(f"{words[0] if words else 'sweep'}: want a sweep's .yaml file first")
    path, *others = words
    seed_words = [word for word in others if word.startswith("seeds=")]
    added_words = [word for word in others if word not in seed_words]
    file = config.read(SweepFile, [path, *seed_words])
    sweep, seeds = file.name or Path(path).stem, dict.fromkeys(file.seeds)
    entries = file.runs or {"": []}
    _check_count(len(entries), math.prod(map(len, file.grid.values())), len(seeds))
    runs = []
    for run_name, run_words in entries.items():
        for values in itertools.product(*file.grid.values()):
            grid_words, names = [], [run_name] if run_name else []
            for dotted_key, value in zip(file.grid, values, strict=True):
                grid_words.append(f"{dotted_key}={json.dumps(value)}")
                names.append(f"{dotted_key.split('.')[-1]}={json.dumps(value)}")
            variant = ",".join(names).replace("/", "-").replace('"', "")
            all_words = (*file.base, *run_words, *grid_words, *added_words)
            point = dict(zip(file.grid, values, strict=True))
            for seed in seeds:
                runs.append(SweepRun(sweep, variant, seed, all_words, run_name, point))
    return runs


def _check_count(entries: int, points: int, seeds: int) -> None:
    """Raise ConfigError where a sweep has more runs than can be checked before the first."""
    count = entries * points * seeds
    if count > MOST_RUNS:
        raise ConfigError(f"grid: {entries:,} runs x {points:,} points x {seeds:,} seeds are "
            f"{count:,} runs, want at most {MOST_RUNS:,}; give several files")


def read_view(words: Sequence[str], runs: Sequence[SweepRun]) -> View:
    """Return the columns, plots and epoch that the sweep's file shows of its runs."""
    file = config.read(SweepFile, [words[0]])
    entries = {run.variant: (run.entry, run.grid) for run in runs}
    return View(file.epoch, tuple(file.columns), file.plots, file.paths, entries)


def load_configs(runs: Sequence[SweepRun]) -> list[Config]:
    """Return the configuration of each run.

    Raises:
        ConfigError: With the problems of all variants, one a line, each with its name.
    """
    configs: list[Config] = []
    problems: list[str] = []
    for run in runs:
        name = f"{run.sweep}/{run.variant}/seed{run.seed}"
        with collect_problems(problems, (ConfigError,), f"{run.variant}: "):
            words = [*run.words, f"run.name={name}", f"run.seed={run.seed}"]
            configs.append(config.load(words))
    if problems:  # once, though all seeds of a variant have them
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return configs
