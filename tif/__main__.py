"""The console script `tif`: each of its commands is a module, `tif fit` is `python -m tif.fit`.

Only the command that is called is imported, so that `tif --help` answers at once.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from tif.utils import command_line

# What `tif --help` says of each command.
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
TRAINING = ("unlearn", "forget", "train", "finetune", "run")  # tried where fit is meant


def run() -> None:
    """Run the console script and exit with the command's code."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for words
        from tif.config.help import answer_shell

        answer_shell(list(COMMANDS), load_command)
    command_line.run_main(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names and return its exit code.

    0 = done, 2 = there is no such command; else that of the command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0 if words else 2
    if words[0] == "--version":
        print(version_text())
        return 0
    name = words[0]
    if name not in COMMANDS:
        from tif.config.errors import nearest  # not needed where a command runs

        near = "; did you mean fit?" if name in TRAINING else nearest(name, list(COMMANDS))
        command_line.print_error(f"tif {name}: no such command{near}; see tif --help")
        return 2
    with command_line.loading():
        command = load_command(name)
    return int(command.main(words[1:]))


def load_command(name: str) -> Any:
    """Return a command, whose module is imported now."""
    module = importlib.import_module(f"tif.{name}")
    if not hasattr(module, "COMMAND"):  # a room of its own
        module = importlib.import_module(f"tif.{name}.command")
    return module.COMMAND


def help_text() -> str:
    """Return what `tif --help` prints."""
    lines = [f"  {name:9} {text}" for name, text in COMMANDS.items()]
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
    from tif._version import VERSION
    from tif.utils.environment import read_commit

    commit = read_commit()
    return f"tif {VERSION}" + (f" (commit {commit})" if commit else "")


if __name__ == "__main__":
    run()
