"""How commands end, in processes of their own."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.support.evaluation_logs import log
from tests.support.hangs import HANG
from tif.utils.command_line import fit_help

COMMANDS = ["tif.fit --help", "tif.evaluate --metrics", "tif --help"]
OTHER_COMMANDS = ["tif.identify --help", "tif.sweep --help", "tif.bench --help"]
BROKEN = """
import sys
from tif.utils import command_line
def main():
    print("told")
    raise BrokenPipeError("another")
command_line.run_main(main)
"""


def cut(*words):
    """The command, whose output nobody reads: exit code and what it says on stderr."""
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    return lambda: (process.wait(HANG), process.stderr.read())


@pytest.mark.parametrize(
    "commands", [COMMANDS, pytest.param(OTHER_COMMANDS, marks=pytest.mark.slow)]
)
def test_a_command_whose_output_is_cut_ends_quietly(commands):
    started = {name: cut("-m", *name.split()) for name in commands}
    for name, end in started.items():
        assert end() == (128 + signal.SIGPIPE, ""), name


@pytest.mark.slow
def test_a_table_that_is_cut_ends_quietly(tmp_path):
    end = cut("-m", "tif.evaluate", f"records={log(tmp_path / 'log.json')}")
    code, printed = end()
    assert printed == ""
    assert code != 0


def test_a_terminal_reads_loading_until_the_libraries_are_there():
    """On a busy machine half a minute passes before a command can print its first line."""
    controller, terminal = pty.openpty()
    words = [sys.executable, "-m", "tif", "ls", "nothing"]
    subprocess.run(words, stdout=terminal, stderr=terminal, timeout=HANG, check=False)
    shown = os.read(controller, 10_000).decode()
    assert shown.startswith("loading ...\r\x1b[Ktif ls nothing: want runs, ")
    done = subprocess.run(words, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.stderr.startswith("tif ls nothing: want runs, ")  # not in a log


def test_another_broken_pipe_is_told():
    process = subprocess.run(
        [sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=HANG
    )
    assert (process.returncode, process.stdout) == (1, "told\n")
    assert process.stderr.endswith("BrokenPipeError: another\n")


@pytest.mark.parametrize("code", [0, 2])
def test_a_command_ends_with_the_code_of_its_main(code):
    words = [
        sys.executable,
        "-c",
        f"from tif.utils import command_line; command_line.run_main(lambda: {code})",
    ]
    assert subprocess.run(words, timeout=HANG).returncode == code


def test_a_help_text_is_filled_anew_in_a_narrow_terminal():
    prose = (
        "A first line that is longer than eighty characters, "
        "because it goes on in the line below\nit. Short."
    )
    entry = "    key=value  an indented line of a list, longer than the terminal is wide now"
    text = (
        f"{prose}\nnext: an entry\n\n{entry}\n               and its second line\n"
        "    other      short"
    )
    assert fit_help(text, 100) == text
    lines = fit_help(text, 60).splitlines()
    assert lines == [
        "A first line that is longer than eighty characters, because",
        "it goes on in the line below it. Short.",
        "next: an entry",
        "",
        "    key=value  an indented line of a list, longer than the",
        "               terminal is wide now and its second line",
        "    other      short",
    ]
