"""Completion in a shell: which words follow, and the whole way from argcomplete's environment."""

import os
import subprocess
import sys

import pytest

from tif import __main__ as script
from tif.config.help import list_words


def words(command, prefix):
    return list_words(prefix, script.load_command(command).schema)


def test_files_presets_keys_and_choices_are_completed():
    assert words("fit", "tofu.y") == ["tofu.yaml"]
    assert "model=smollm2_135m" in words("fit", "model=smol")
    assert words("fit", "loss.lpl_base") == ["loss.lpl_baseline=none", "loss.lpl_baseline=mean"]
    assert words("audit", "relearn.st") == ["relearn.steps="]


def test_every_command_with_keys_has_some_and_the_others_leave_files_to_the_shell():
    for command in ("fit", "sweep", "evaluate", "identify", "audit", "chat", "bench"):
        assert words(command, "model.pa") == ["model.path="], command
    assert words("report", "loss.") == []


def test_a_shell_gets_the_words(tmp_path):
    """As bash asks: the line in the environment, the answer on file descriptor 8."""
    pytest.importorskip("argcomplete")
    line = "tif fit optimizer.l"
    variables = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    command = [sys.executable, "-m", "tif"]
    with open(tmp_path / "answer", "wb") as file:
        script = f'exec 8>&{file.fileno()} 9>&2; exec "$@"'
        subprocess.run(
            ["bash", "-c", script, "bash", *command],
            env=os.environ | variables | {"_ARGCOMPLETE_SUPPRESS_SPACE": "1"},
            pass_fds=[file.fileno()], check=True,
        )  # fmt: skip
    assert (tmp_path / "answer").read_text().split() == ["optimizer.lr="]
