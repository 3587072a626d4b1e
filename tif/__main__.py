"""The console script `tif`: each of its commands is a module, `tif fit` is `python -m tif.fit`.

Only the command that is called is imported, so that `tif --help` answers at once.
"""

import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence

from tif.utils import interrupts

# What `tif --help` says of each command; it lists those whose module is there.
COMMANDS = {
    "fit": "finetune or unlearn a model, evaluate it, export it",
    "identify": "label unwanted words; compare and show such labels",
    "evaluate": "measure any Hugging Face causal LM",
    "sweep": "make many runs of one file, and their table",
    "report": "show finished runs: tables, report.html, exports for a paper",
    "chat": "ask a question to the models of a run, side by side",
    "audit": "try to get out of a model what it was to forget",
    "bench": "measure speed and memory on this machine",
    "download": "fetch models and benchmarks before a job without network",
    "ls": "list runs, methods, models, benchmarks or experiments",
}


def run() -> None:
    """Run the console script and exit with the command's code."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for words
        import tif.losses  # noqa: F401  registers the loss terms, whose keys the configuration has
        from tif.config.completion import answer_shell

        answer_shell(list_commands())
    interrupts.watch()
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names and return its exit code.

    0 = done, 2 = there is no such command; else that of the command, which ends the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0 if words else 2
    if words[0] == "--version":
        print(version_text())
        return 0
    name, commands = words[0], list_commands()
    if name not in commands:
        # Imported only here and below: neither is needed where a command runs.
        from tif.config.check import nearest
        from tif.utils.command_line import print_error

        print_error(f"tif {name}: no such command{nearest(name, commands)}; see tif --help")
        return 2
    sys.argv = ["tif", *words[1:]]
    runpy.run_module(f"tif.{name}", run_name="__main__", alter_sys=True)
    return 0


def list_commands() -> list[str]:
    """Return the names of the commands that are there. None of them is imported."""
    names = []
    for name in COMMANDS:
        spec = importlib.util.find_spec(f"tif.{name}")
        if spec and spec.origin:  # a folder without files is found too, but has no origin
            names.append(name)
    return names


def help_text() -> str:
    """Return what `tif --help` prints."""
    lines = [f"  {name:9} {COMMANDS[name]}" for name in list_commands()]
    return "\n".join([
        "Targeted Information Forgetting: make a language model forget chosen words.\n",
        "    tif COMMAND [words of the command]",
        "    tif COMMAND --help",
        "    tif --version\n",
        *lines,
        "\n`tif fit` alone is the quickstart: two minutes on a CPU, no download.",
        "`python -m tif.fit` is the same command; so it is for each of them.",
    ])  # fmt: skip


def version_text() -> str:
    """Return the version of the package, and the commit where it runs from a checkout."""
    import tif
    from tif.utils.environment import read_commit

    commit = read_commit()
    return f"tif {tif.__version__}" + (f" (commit {commit})" if commit else "")


if __name__ == "__main__":
    run()
