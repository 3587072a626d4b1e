"""python -m tif.sweep FILE.yaml [key=value ...]: many runs over one configuration, then a table and a plot of them.

    python -m tif.sweep sweep/methods_quickstart.yaml
    python -m tif.sweep sweep/methods_quickstart.yaml trainer.max_epochs=5   the same words added to every run
    python -m tif.sweep FILE.yaml --print                                      the runs, and nothing else

The file says what to run:

    name: methods                      # runs go to <run.folder>/<name>/<run>/seed<seed>
    base: [quickstart.yaml]            # words of python -m tif.fit that all runs share
    seeds: [0, 1, 2]
    runs:                              # by name, the words that each adds
      tpo: []
      npo: [loss/npo.yaml, optimizer.lr=1e-4]
    grid:                              # instead of runs, or times them: every combination of these values
      loss.beta: [0.1, 0.3]

All configurations are checked before the first run. Runs go in order; finished ones are not run again, an unfinished
one goes on from its last epoch, stages (target and retain models) are shared. A run whose loss is not finite is named
and left out. After each run its folder <run.folder>/<name> gets table.md, results.json and quality_utility.png.

Exit code: 0 done, 1 a run's loss was not finite, 2 wrong input (one line a problem, before weights load).
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tif import config
from tif.schema import Config, key

T = TypeVar("T")


@dataclasses.dataclass
class File:
    """A sweep file."""

    name: str | None = key(None, "the sweep's folder is <run.folder>/<name>; null = the file's name")
    base: list[str] = key([], "words of python -m tif.fit that all runs share")
    seeds: list[int] = key([0], "values of run.seed")
    runs: dict[str, list[str]] = key({}, "by name, the words that each run adds")
    grid: dict[str, list[Any]] = key({}, "by key, the values to combine")

    def combinations(self) -> list[str]:
        """Problems between keys, one line each."""
        problems = [] if self.runs or self.grid else ["runs: nothing to run; want runs or grid"]
        if not self.seeds:
            problems.append("seeds: want at least one")
        return problems


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run of the sweep, with all its seeds: the words of `python -m tif.fit` that make it."""

    name: str
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file says."""

    name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]

    def config(self, variant: Variant, seed: int) -> Config:
        """The configuration of one run.

        Raises:
            ConfigError: As `tif.config.load`.
        """
        return config.load([*variant.words, f"run.name={self.name}/{variant.name}/seed{seed}", f"run.seed={seed}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0 done, 1 a loss was not finite, 2 wrong input (one line a problem)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    try:
        found = read([word for word in words if word != "--print"])
        configs = _each(found, lambda variant: [found.config(variant, seed) for seed in found.seeds])
        if "--print" in words:
            for variant in found.variants:
                print(f"{variant.name}: python -m tif.fit {' '.join(variant.words)}")
            return 0
        from tif import planning, training

        training.quiet()
        _each(found, lambda variant: [planning.plan(found.config(variant, found.seeds[0]))])
        return run(found, configs)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def read(words: Sequence[str]) -> Sweep:
    """The sweep that FILE.yaml describes, `words` after it added to each run.

    Raises:
        ConfigError: One line a problem.
    """
    file, *more = words
    if not config.is_file(file):
        raise config.ConfigError(f"{file}: want a sweep's .yaml file first")
    told = config.read(File, [file])
    return Sweep(told.name or Path(file).stem, tuple(_variants(told, more)), tuple(dict.fromkeys(told.seeds)))


def _variants(told: File, more: Sequence[str]) -> Iterator[Variant]:
    """Every named run with every combination of the grid's values."""
    runs, combined = told.runs or {"": []}, list(itertools.product(*told.grid.values()))
    for (name, own), values in itertools.product(runs.items(), combined):
        chosen = {key: json.dumps(value) for key, value in zip(told.grid, values, strict=True)}
        parts = [name, *(f"{key.split('.')[-1]}={value}" for key, value in chosen.items())]
        words = (*told.base, *own, *(f"{key}={value}" for key, value in chosen.items()), *more)
        yield Variant(",".join(filter(None, parts)).replace("/", "-").replace('"', ""), words)


def _each(sweep: Sweep, make: Callable[[Variant], list[T]]) -> list[T]:
    """`make` of every variant.

    Raises:
        ConfigError: With the problems of all variants, one a line, each with its run's name.
    """
    found: list[T] = []
    problems: list[str] = []
    for variant in sweep.variants:
        try:
            found += make(variant)
        except config.ConfigError as error:
            problems += [f"{variant.name}: {line}" for line in str(error).splitlines()]
    if problems:
        raise config.ConfigError("\n".join(problems))
    return found


def run(sweep: Sweep, configs: Sequence[Config]) -> int:
    """Make the runs that are not there, in order, and the results after each. Returns the exit code."""
    from rich.markup import escape

    from tif import runs, training
    from tif.sweep_results import show, write
    from tif.terminal import console

    folders: dict[str, list[Path]] = {variant.name: [] for variant in sweep.variants}
    out, code, total = Path(configs[0].run.folder) / sweep.name, 0, len(configs)
    for number, cfg in enumerate(configs, 1):
        name, folder = cfg.run.name.split("/")[-2], runs.finished(cfg)
        console.print(f"{number}/{total} {escape(cfg.run.name)}{' [dim](made before)[/]' if folder else ''}")
        try:
            folders[name].append(folder or training.run(cfg))
        except FloatingPointError as error:
            console.print(f"{escape(cfg.run.name)}: {escape(str(error))}", soft_wrap=True)
            code = 1
        write(out, folders)
    show(out)
    return code


if __name__ == "__main__":
    sys.exit(main())
