"""python -m tif.sweep FILE.yaml [key=value ...]: many runs over one configuration, then a table and a plot of them.

    python -m tif.sweep sweep/methods_quickstart.yaml
    python -m tif.sweep sweep/methods_quickstart.yaml trainer.max_epochs=5   the same words added to every run
    python -m tif.sweep FILE.yaml jobs=4        four at a time, each in a process (and on a GPU) of its own
    python -m tif.sweep FILE.yaml --list        the runs with their numbers, and nothing else; --count: how many
    python -m tif.sweep FILE.yaml --index 3     run number 3 alone, as a task of an array job (slurm/sweep.sbatch)
    python -m tif.sweep FILE.yaml --stage target    the target models that the runs need, and nothing else
    python -m tif.sweep FILE.yaml --table       the table of what is there


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
one goes on from its last checkpoint, stages (target and retain models) are shared. A run whose loss is not finite is
named and left out. After each run its folder <run.folder>/<name> gets table.md, results.json and quality_utility.png.

Exit code: 0 done, 1 a run failed (its loss was not finite, a file could not be written), 2 wrong input (one line a
problem, before weights load), 128 + N stopped by signal N: the same command goes on.
"""

import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.schema import Config, key
from tif.utils import distributed
from tif.utils.command_line import report_os_error
from tif.utils.hashing import hash_json

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


OPTIONS = {"--list": False, "--count": False, "--table": False, "--index": True, "--stage": True}  # whether with a word


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code, as told above."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        print(__doc__)
        return 0 if words else 2
    try:
        rest, options = _options(words)
        jobs = _number(
            "jobs", next((w for w in rest if w.startswith("jobs=")), "jobs=1").removeprefix("jobs="), 1, 10_000
        )
        rest = [word for word in rest if not word.startswith("jobs=")]
        found = read(rest)
        configs = every = _each(found, lambda variant: [found.config(variant, seed) for seed in found.seeds])
        if "--list" in options or "--count" in options:
            print(len(configs) if "--count" in options else "\n".join(_listing(found)))
            return 0
        if "--table" in options:
            return _table(found, configs)
        if "--index" in options:
            configs = [configs[_number("--index", options["--index"], 0, len(configs) - 1)]]
        if "--stage" in options:
            configs = _stages(configs, options["--stage"])
        started = distributed.launch("tif.sweep", words, configs[0].trainer.devices, configs[0].trainer.accelerator)
        if started is not None:
            return started
        from tif.training import plan as planning
        from tif.training import run as training

        training.quiet()
        if "--index" not in options:  # a task's own plan is checked when it runs
            first = dict(zip(found.variants, every[:: len(found.seeds)], strict=True))
            _each(found, lambda variant: [planning.plan(first[variant])])
        if jobs > 1 and len(configs) > 1 and "--stage" not in options:
            from tif.sweep.jobs import run_all

            code = run_all(found.name, configs, rest, jobs)
            _table(found, configs)
            return code
        return run(found, configs, every)
    except ConfigError as error:
        if distributed.is_first_rank():
            print(error, file=sys.stderr)
        return 2
    except Exception as error:
        return report_os_error(error, "the same command goes on with what is missing")


def _options(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words of the sweep, and the options with the words that belong to them."""
    rest, options, left = [], dict[str, str](), iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            rest.append(word)
        elif name not in OPTIONS:
            raise ConfigError(f"{word}: unknown option; want one of {', '.join(OPTIONS)}")
        elif OPTIONS[name]:
            options[name] = value if equals else next(left, "")
        else:
            options[name] = ""
    return rest, options


def _number(name: str, word: str, low: int, high: int) -> int:
    if not word.isdigit() or not low <= int(word) <= high:
        raise ConfigError(f"{name}: want a number from {low} to {high}, got {word!r}")
    return int(word)


def _listing(found: "Sweep") -> Iterator[str]:
    """A line a run: its number, its name, the command that makes it."""
    runs = itertools.product(found.variants, found.seeds)
    for number, (variant, seed) in enumerate(runs):
        name = f"{variant.name}/seed{seed}".lstrip("/")
        yield f"{number} {name}: python -m tif.fit {' '.join(variant.words)} run.seed={seed}"


def _stages(configs: Sequence[Config], name: str) -> list[Config]:
    """One configuration for each different stage of that name."""
    from tif.training import run_folders as runs

    found = {}
    for cfg in configs:
        own = config.stage(cfg, name)
        found[hash_json([runs.determining(own), dataclasses.asdict(own.data)])] = cfg
    return [dataclasses.replace(cfg, stage=name) for cfg in found.values()]


def _table(found: "Sweep", configs: Sequence[Config]) -> int:
    """Write and show the table of the runs that are there."""
    from tif.reports.sweep import show_results

    show_results(collect(found, configs))
    return 0


def read(words: Sequence[str]) -> Sweep:
    """The sweep that FILE.yaml describes, `words` after it added to each run.

    Raises:
        ConfigError: One line a problem.
    """
    file, *more = words
    if not config.is_file(file):
        raise ConfigError(f"{file}: want a sweep's .yaml file first")
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
        except ConfigError as error:
            problems += [f"{variant.name}: {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def run(sweep: Sweep, configs: Sequence[Config], every: Sequence[Config]) -> int:
    """Make the runs that are not there, in order, and the results after each. Returns the exit code.

    Args:
        sweep: what the runs belong to.
        configs: runs to make, or stages.
        every: all runs of the sweep, whose results are shown together.
    """
    from rich.markup import escape

    from tif.training import run as training
    from tif.training import run_folders as runs
    from tif.utils.terminal import console

    code, total = 0, len(configs)
    try:
        for number, cfg in enumerate(configs, 1):
            folder = None if cfg.stage else runs.finished(cfg)
            if distributed.is_first_rank():
                made = " [dim](made before)[/]" if folder else ""
                console.print(f"{number}/{total} {escape(cfg.run.name)}{made}")
            if not folder:
                ended = training.attempt(functools.partial(training.run, cfg))
                if ended > 128:
                    return ended
                code = code or ended
            if distributed.is_first_rank() and not cfg.stage:
                collect(sweep, every)
    finally:
        distributed.finish()
    if total > 1 and distributed.is_first_rank() and not configs[0].stage:
        _table(sweep, every)
    return code


def collect(sweep: Sweep, configs: Sequence[Config]) -> Path:
    """Bring the results up to date with the runs that are there; several processes may ask at once.

    Returns:
        The sweep's folder.
    """
    import filelock

    from tif.reports.sweep import write_results
    from tif.training import run_folders as runs

    out = Path(configs[0].run.folder) / sweep.name
    out.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out / runs.LOCK):
        folders: dict[str, list[Path]] = {variant.name: [] for variant in sweep.variants}
        for cfg in configs:
            if folder := runs.finished(cfg):
                folders[cfg.run.name.split("/")[-2]].append(folder)
        write_results(out, folders)
    return out
