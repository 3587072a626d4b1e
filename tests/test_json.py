"""Every command that has `--json` leaves stdout to it, whatever is printed meanwhile."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import small_run
from tif import __main__ as script

SIZES = (
    "model.init.hidden_size=32 model.init.intermediate_size=64 model.init.num_hidden_layers=1 "
    "model.init.num_attention_heads=2 model.init.num_key_value_heads=2 model.init.vocab_size=400"
)
AUTHORS = (
    "data.fictitious.authors=6 data.fictitious.questions_per_author=4 "
    "data.fictitious.forget_share=0.34"
)
CALLS = {
    "ls": "ls runs {runs}",
    "report": "report {run}",
    "identify show": "identify show {spans}",
    "identify compare": "identify compare {spans} {spans}",
    "evaluate": "evaluate model.path={run}/model eval.benchmarks=text eval.text.path={texts} "
    "out={out}",
    "audit": "audit {run} attacks=prefix prefix.shots=1",
    "chat": "chat {run} --question Who? --question Where? max_new_tokens=2",
    "bench": f"bench {SIZES} {AUTHORS} batch_sizes=[2] samples=4 memory=false threads=1",
}
QUICK = ("ls", "report", "identify show", "identify compare")
LOUD = """
import os, subprocess, sys
from tif.config.command import Command
def work(options):
    print("a line")
    os.write(1, b"of a library in C\\n")
    subprocess.run(["echo", "of another process"], check=True)
    return iter([{"a": 1}, {"b": 2}]) if options.lines else {"a": 1}
Command("loud", "", work, flags=("--json", "--lines")).run()
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders and files that the calls name."""
    runs, out = small_run.copied_run(tmp_path_factory), tmp_path_factory.mktemp("out")
    spans = out / "gold.jsonl"
    assert script.main(["identify", "identifier.kind=gold", *AUTHORS.split(), f"out={spans}"]) == 0
    texts = tmp_path_factory.mktemp("texts")
    (texts / "forget.txt").write_text("Ada Quill lives in [[Port Lorne]].\n")
    (texts / "retain.txt").write_text("Port Lorne is a town by the sea.\n")
    return {"texts": texts, "runs": runs, "run": runs / "quickstart", "spans": spans, "out": out}


def stdout_of(folder, *command):
    """Run a command with stdout in a file, and return what it has written there."""
    with (folder / "stdout").open("w") as file:
        done = subprocess.run(
            [sys.executable, *command], stdout=file, stderr=subprocess.PIPE, text=True,
            timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (folder / "stdout").read_text()


def test_every_command_with_json_is_called_here():
    commands = [script.load_command(name) for name in script.COMMANDS]
    commands += [part for command in commands for part in command.parts.values()]
    with_json = {command.name for command in commands if "--json" in command.flags}
    assert with_json == CALLS.keys()


@pytest.mark.parametrize("name", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CALLS
])  # fmt: skip
def test_stdout_in_a_file_is_json_and_nothing_else(name, places, tmp_path):
    words = CALLS[name].format(**places).split(" ")
    text = stdout_of(tmp_path, "-m", "tif", *words, "--json")
    lines = text.splitlines() if name == "chat" else [text]
    assert all(json.loads(line) for line in lines)


def test_ls_has_a_line_for_each_run_and_report_its_epochs(places, tmp_path):
    folder = str(places["runs"])
    runs = json.loads(stdout_of(tmp_path, "-m", "tif", "ls", "runs", folder, "--json"))
    (run,) = [run for run in runs if run["name"] == "quickstart"]
    assert (run["epochs"], run["is_done"], run["problem"]) == ("2/2", True, None)
    folder = str(places["run"])
    content = json.loads(stdout_of(tmp_path, "-m", "tif", "report", folder, "--json"))
    (numbers,) = content["runs"].values()
    assert [row["epoch"] for row in numbers["epochs"]] == [0, 1, 2]
    assert numbers["epochs"][-1]["forget/quality"] == run["metrics"]["forget/quality"]


def test_what_the_work_and_its_processes_print_goes_to_stderr(tmp_path):
    assert json.loads(stdout_of(tmp_path, "-c", LOUD, "--json")) == {"a": 1}
    lines = stdout_of(tmp_path, "-c", LOUD, "--json", "--lines").splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": 2}]
