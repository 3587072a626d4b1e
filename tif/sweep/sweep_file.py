"""Read a sweep file and expand it to the runs that it describes.

Called by `tif.sweep.command`. Reads configurations only: no torch, no data, no model.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tif.losses  # noqa: F401  registers the loss terms, whose keys a run's configuration has
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.schema import Config, key


@dataclasses.dataclass
class SweepFile:
    """The keys of a sweep file."""

    name: str | None = key(None, "the sweep's folder is <run.folder>/<name>; null = file's name")
    base: list[str] = key([], "words of python -m tif.fit that all runs share")
    seeds: list[int] = key([0], "values of run.seed")
    runs: dict[str, list[str]] = key({}, "by name, the words that each run adds")
    grid: dict[str, list[Any]] = key({}, "by key, the values to combine")

    def find_problems(self) -> list[str]:
        """Return problems between keys, one line each."""
        problems = []
        if not self.runs and not self.grid:
            problems.append("runs: nothing to run; want runs or grid")
        if not self.seeds:
            problems.append("seeds: want at least one")
        return problems


@dataclasses.dataclass(frozen=True)
class Variant:
    """A run of the sweep without its seed: a name, and the words of `python -m tif.fit`."""

    name: str
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of the sweep: a variant with a seed, and the configuration that the two make."""

    variant: Variant
    seed: int
    cfg: Config

    def command(self) -> str:
        """Return the command that makes the same run alone."""
        return f"python -m tif.fit {' '.join(self.variant.words)} run.seed={self.seed}"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The content of a sweep file, with the grid expanded."""

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]

    def load_runs(self) -> list[SweepRun]:
        """Load the configuration of every variant with every seed; the seeds of a variant follow.

        Raises:
            ConfigError: With the problems of all variants, one a line, each with its name.
        """
        runs: list[SweepRun] = []
        problems: list[str] = []
        for variant in self.variants:
            with collect_problems(problems, (ConfigError,), f"{variant.name}: "):
                for seed in self.seeds:
                    name = f"run.name={self.name}/{variant.name}/seed{seed}"
                    cfg = config.load([*variant.words, name, f"run.seed={seed}"])
                    runs.append(SweepRun(variant, seed, cfg))
        if problems:
            raise ConfigError("\n".join(problems))
        return runs


def read_sweep(words: Sequence[str]) -> Sweep:
    """Return the sweep of a file.

    Args:
        words: the file's name, then words that are added to every run.

    Raises:
        ConfigError: One line for each problem.
    """
    if not words or not config.is_file(words[0]):
        first_word = words[0] if words else "no words"
        raise ConfigError(f"{first_word}: want a sweep's .yaml file first")
    path, *added_words = words
    file = config.read(SweepFile, [path])
    seeds = tuple(dict.fromkeys(file.seeds))  # each once
    return Sweep(file.name or Path(path).stem, _expand(file, added_words), seeds)


def _expand(file: SweepFile, added_words: Sequence[str]) -> tuple[Variant, ...]:
    """Return every named run with every combination of the grid's values."""
    variants = []
    runs = file.runs or {"": []}
    for run_name, run_words in runs.items():
        for values in itertools.product(*file.grid.values()):
            grid_words, name_parts = [], [run_name] if run_name else []
            for dotted_key, value in zip(file.grid, values, strict=True):
                written = json.dumps(value)
                grid_words.append(f"{dotted_key}={written}")
                name_parts.append(f"{dotted_key.split('.')[-1]}={written}")
            name = ",".join(name_parts).replace("/", "-").replace('"', "")
            words = (*file.base, *run_words, *grid_words, *added_words)
            variants.append(Variant(name, words))
    return tuple(variants)
