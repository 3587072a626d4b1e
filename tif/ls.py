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

Exit code: 0 done, 1 a folder could not be read, 2 wrong input (one line a problem).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tif.config import load as config
from tif.config.check import nearest
from tif.config.evaluation import BENCHMARKS
from tif.config.files import list_model_presets
from tif.utils import command_line
from tif.utils.terminal import console, literal

# Name -> what it is, and what its path may be.
BENCHMARK_TEXTS = {
    "fictitious": ("invented authors in TOFU's schema, with exact unwanted words", "needs none"),
    "tofu": (
        "questions about fictitious authors; splits forget01, forget05, forget10",
        "locuslab/TOFU or a folder",
    ),
    "muse-news": ("BBC articles to forget", "muse-bench/MUSE-News or a folder"),
    "muse-books": ("Harry Potter books to forget", "muse-bench/MUSE-Books or a folder"),
    "lume": (
        "invented stories, invented people, biographies; splits task1, task2, task3",
        "data/ of amazon-science/\nlume-llm-unlearning",
    ),
    "text": ("your own texts or questions", "a file, or a folder with forget.*, retain.*"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or {"-h", "--help"} & set(words):
        command_line.print_help(__doc__ or "")
        return 0 if words else 2
    kind, *folders = words
    if kind not in LISTS:
        problem = f"tif ls {kind}: want {', '.join(LISTS)}{nearest(kind, list(LISTS))}"
        command_line.print_error(problem)
        return 2
    if folders and kind != "runs":
        command_line.print_error(f"tif ls {kind}: want nothing after it, got {folders[0]}")
        return 2
    try:
        return LISTS[kind](folders)
    except Exception as error:
        return command_line.report_os_error(error, "want a folder that can be read")


def list_runs(folders: Sequence[str]) -> int:
    """Print the table of the runs in folders; return the exit code."""
    # Imported here because pydantic, which reads run folders, takes a while.
    from tif.reports import run_list

    for folder in folders:
        if not Path(folder).is_dir():
            command_line.print_error(f"tif ls runs: {folder} is no folder; want one with runs")
            return 2
    runs = run_list.read_runs([Path(folder) for folder in folders or ["runs"]])
    if not runs:
        console.print(f"no runs in {', '.join(folders or ['runs'])}", soft_wrap=True)
        return 0
    console.print(run_list.runs_table(runs))
    for run in runs:
        if run.problem:
            console.print(run.problem, soft_wrap=True)
    return 0


def list_methods(folders: Sequence[str]) -> int:
    """Print the loss terms and the files that name them; return the exit code."""
    import tif.losses  # noqa: F401  registers the terms
    from tif.config.help import list_method_files
    from tif.config.methods import FORGET, RETAIN

    table = _make_table("loss.forget", "what it does", "files in loss/")
    files = list_method_files()
    for name, method in sorted(FORGET.items()):
        table.add_row(name, _first_sentence(method.doc), ", ".join(files.get(name, [])))
    console.print(table, "")
    table = _make_table("loss.retain", "what it does")
    for name, method in sorted(RETAIN.items()):
        table.add_row(name, _first_sentence(method.doc))
    console.print(table)
    console.print("\ntif fit loss/FILE.yaml ... takes a method; docs/methods.md has the formulas")
    return 0


def list_models(folders: Sequence[str]) -> int:
    """Print the presets of models; return the exit code."""
    table = _make_table("model=", "hub name, and what it is", "variants")
    for name in list_model_presets():
        path = config.own_configs() / "model" / f"{name}.yaml"
        comment = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        content = config.read_yaml(path)
        title = literal(comment.rstrip("."), "dim")
        text = Text.assemble(literal(content.model.base), "\n", title)
        table.add_row(name, text, " ".join(content.get("variants") or ()))
    console.print(table)
    console.print("\ntif fit model=NAME or model=NAME:VARIANT takes a preset,")
    console.print("tif fit model.path=MODEL any causal LM")
    return 0


def list_benchmarks(folders: Sequence[str]) -> int:
    """Print the benchmarks; return the exit code."""
    table = _make_table("name", "what it is", "path")
    for name, (text, place) in BENCHMARK_TEXTS.items():
        table.add_row(name, text, place)
    table.add_row("lm-eval:TASK", "a task of lm-eval (general ability)", "evaluation only")
    console.print(table)
    keys = ", ".join(f"eval.{section}.path" for section in BENCHMARKS.values())
    console.print("\ndata.benchmark=NAME data.path=PATH is learned and forgotten (tif fit);")
    console.print("eval.benchmarks=NAME,... (all but fictitious) is evaluated, with its path in "
        f"{keys}")
    return 0


def list_experiments(folders: Sequence[str]) -> int:
    """Print the sweeps of configs/experiment; return the exit code."""
    table = _make_table("tif sweep", "what it compares")
    for path in sorted((config.own_configs() / "experiment").glob("*.yaml")):
        comment = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.lstrip("# "))
        commands = ("tif sweep", "sbatch", "wandb sweep")
        text = " ".join(line for line in comment if not line.startswith(commands))
        table.add_row(f"experiment/{path.name}", _first_sentence(text))
    console.print(table)
    console.print("\ndocs/results.md has what they found; tif sweep FILE --list names the runs")
    return 0


LISTS: dict[str, Callable[[Sequence[str]], int]] = {
    "runs": list_runs,
    "methods": list_methods,
    "models": list_models,
    "benchmarks": list_benchmarks,
    "experiments": list_experiments,
}


def _make_table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, no_wrap=number == 0, overflow="fold")
    return table


def _first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring, which may go over several lines."""
    paragraph = " ".join(doc.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


if __name__ == "__main__":
    command_line.run_main(main)
