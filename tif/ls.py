"""tif ls: list runs, methods, models, benchmarks or experiments.

    tif ls runs [FOLDER ...]
    tif ls methods
    tif ls models
    tif ls benchmarks
    tif ls experiments

runs: the run folders in a folder (runs, if none is given), also those of its sweeps and stages;
with method, data, model, epochs, the numbers of the last evaluation, and whether the run is done.
methods: the loss terms, with the files that make a method of them.
models: the presets in configs/model.
benchmarks: what data.benchmark and eval.benchmarks take.
experiments: the sweeps in configs/experiment, with what each compares.
"""

import dataclasses
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from tif.config import load as config
from tif.config.command import Command
from tif.config.errors import ConfigError, nearest
from tif.config.files import list_model_presets
from tif.config.layers import list_variants
from tif.config.registry import entries
from tif.utils.terminal import console, print_rows

Rows = list[dict[str, Any]]


def ls(options: Namespace) -> Any:
    """Print the list that the first word names; with --json, return its rows."""
    kind, *folders = options.words or [""]
    kinds = ["runs", *LISTS]
    if kind not in kinds:
        raise ConfigError(f"tif ls {kind}: want {', '.join(kinds)}{nearest(kind, kinds)}")
    if kind == "runs":
        return list_runs(folders, options.json)
    if folders:
        raise ConfigError(f"tif ls {kind}: want nothing after it, got {folders[0]}")
    make_rows, columns, note = LISTS[kind]
    rows = make_rows()
    if options.json:
        return rows
    print_rows(rows, columns)
    console.print(f"\n{note}")
    return None


def list_runs(folders: Sequence[str], wants_json: bool) -> Any:
    """Print the table of the runs in folders, or return their lines."""
    # Imported here because pydantic, which reads run folders, takes a while.
    from tif.reports import run_list

    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"tif ls runs: {folder} is no folder; want one with runs")
    runs = run_list.read_runs([Path(folder) for folder in folders or ["runs"]])
    if wants_json:
        return [dataclasses.asdict(run) for run in runs]
    if not runs:
        console.print(f"no runs in {', '.join(folders or ['runs'])}", soft_wrap=True)
        return None
    console.print(run_list.runs_table(runs))
    for run in runs:
        if run.problem:
            console.print(run.problem, soft_wrap=True)
    return None


def list_methods() -> Rows:
    """Return the loss terms, with the files that name them."""
    from tif.config.help import list_method_files

    rows, files = [], {"forget": list_method_files(), "retain": {}}
    for kind, files_of_terms in files.items():
        for name, term in sorted(entries(kind).items()):
            row = {"key": f"loss.{kind}", "name": name, "text": _first_sentence(term.doc)}
            rows.append({**row, "files": files_of_terms.get(name, [])})
    return rows


def list_models() -> Rows:
    """Return the presets of models."""
    rows = []
    for name in list_model_presets():
        path = config.own_configs() / "model" / f"{name}.yaml"
        comment = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        row = {"name": name, "hub_name": config.read_yaml(path).model.base}
        rows.append({**row, "text": comment.rstrip("."), "variants": list_variants(name)})
    return rows


def list_benchmarks() -> Rows:
    """Return the benchmarks, with what their path may be."""
    readers: Mapping[str, Any] = entries("benchmark")
    rows = []
    for name, reader in readers.items():
        rows.append({"name": name, "text": reader.about, "path": reader.wants or "needs none"})
    text = "a task of lm-eval (general ability)"
    return [*rows, {"name": "lm-eval:TASK", "text": text, "path": "evaluation only"}]


def list_experiments() -> Rows:
    """Return the sweeps of configs/experiment, with what each compares."""
    rows = []
    for path in sorted((config.own_configs() / "experiment").glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = [line.lstrip("# ") for line in takewhile(lambda line: line[:1] == "#", lines)]
        commands = ("tif sweep", "sbatch", "wandb sweep")
        text = " ".join(line for line in comment if not line.startswith(commands))
        rows.append({"file": f"experiment/{path.name}", "text": _first_sentence(text)})
    return rows


# Kind -> its rows, the columns of their table (title -> how a cell is made), a note below it.
LISTS: dict[str, tuple[Callable[[], Rows], Mapping[str, str], str]] = {
    "methods": (
        list_methods,
        {"term": "{key}={name}", "what it does": "{text}", "files in loss/": "{files}"},
        "tif fit loss/FILE.yaml ... takes a method; docs/methods.md has the formulas",
    ),
    "models": (
        list_models,
        {"model=": "{name}", "hub name, and what it is": "{hub_name}\n{text}",
         "variants": "{variants}"},
        "tif fit model=NAME or model=NAME:VARIANT takes a preset,\n"
        "tif fit model.path=MODEL any causal LM",
    ),
    "benchmarks": (
        list_benchmarks,
        {"name": "{name}", "what it is": "{text}", "path": "{path}"},
        "data.benchmark=NAME data.path=PATH is learned and forgotten (tif fit);\n"
        "eval.benchmarks=NAME,... is evaluated; paths: eval.tofu.path, eval.muse_news.path, ...",
    ),
    "experiments": (
        list_experiments,
        {"tif sweep": "{file}", "what it compares": "{text}"},
        "docs/results.md has what they found; tif sweep FILE --list names the runs",
    ),
}  # fmt: skip


def _first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring, which may go over several lines."""
    paragraph = " ".join(doc.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


COMMAND = Command(
    "ls", __doc__, ls, flags=("--json",), needs_words=True,
    next_step="want a folder that can be read",
)  # fmt: skip
main = COMMAND.main

if __name__ == "__main__":
    COMMAND.run()
