"""Ctrl-C and signals of commands in processes: one line, 128 + N, nobody left behind."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.support.evaluation_logs import log
from tests.support.hangs import HANG, wait_until
from tests.support.interrupted_runs import WORDS
from tests.support.small_run import finished, rows
from tif.training.checkpoints import list_checkpoints

ROOT = pathlib.Path(__file__).parents[1]
HOOK = ROOT / "tests" / "support" / "signal_hook"
SLOW_LOSS = ["loss.forget=tests.support.slow_loss:lpl", "stages.target.loss.forget=ce"]


def start(*words, at=None, number=signal.SIGINT, count=1, cwd=ROOT, **env):
    """Start `python -m tif.<words>`; `at`: (audit event, text), when it gets a signal."""
    env = {**os.environ, "PYTHONPATH": f"{HOOK}:{ROOT}", **env}
    if at:
        env["TIF_TEST_SIGNAL"] = "|".join((*at, str(int(number)), str(count)))
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=cwd,
    )


def end(process, limit=HANG):
    """Return exit code and lines on stderr."""
    _, err = process.communicate(timeout=limit)
    return process.returncode, err.splitlines()


def test_ctrl_c_while_a_command_is_imported_is_one_line():
    commands = ("fit", "identify", "evaluate", "report", "sweep", "bench")
    processes = {name: start(f"tif.{name}", "x=1", at=("import", "omegaconf")) for name in commands}
    for name, process in processes.items():
        code, lines = end(process)
        assert (name, code, len(lines)) == (name, 130, 1), lines
        assert lines[0].startswith("stopped by SIGINT; ")


@pytest.mark.slow
def test_ctrl_c_while_data_and_records_are_read_is_one_line(tmp_path):
    (tmp_path / "s.yaml").write_text("base: [quickstart.yaml]\nruns: {a: []}")
    path = log(tmp_path / "log.json")
    processes = [
        start("tif.fit", f"run.folder={tmp_path}/runs", at=("import", "torch")),
        start("tif.identify", f"out={tmp_path}/spans.jsonl", at=("open", "fictitious_texts.yaml")),
        start("tif.evaluate", f"records={path}", at=("open", "log.json")),
        start("tif.sweep", f"{tmp_path}/s.yaml", "--list", at=("open", "s.yaml")),
    ]
    for process in processes:
        code, lines = end(process)
        assert (code, len(lines)) == (130, 1), lines
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_ctrl_c_in_a_report_is_one_line(tmp_path_factory):
    folder = finished(tmp_path_factory).folder
    for file in ("metrics.jsonl", "report.html"):
        code, lines = end(start("tif.report", str(folder), at=("open", file)))
        assert (code, len(lines)) == (130, 1), lines


@pytest.mark.slow
@pytest.mark.parametrize("file", ["fictitious_texts.yaml", "/eval/0/", "model.partial"])
def test_ctrl_c_outside_of_the_steps_is_one_line_and_the_run_goes_on(tmp_path_factory, file):
    folder, name = finished(tmp_path_factory).runs, f"c-{len(file)}"
    words = ["tif.fit", *WORDS, f"run.folder={folder}", f"run.name={name}"]
    code, lines = end(start(*words, at=("open", file)))
    assert (code, len(lines)) == (130, 1), lines
    assert end(start(*words)) == (0, [])
    assert not list((folder / name).rglob("*.tmp")) + list((folder / name).glob("*.partial"))


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_run_at_once_with_one_line(tmp_path_factory):
    """In the middle of a step that would go on for long after HANG."""
    folder, beats = finished(tmp_path_factory).runs, tmp_path_factory.mktemp("beats") / "beats"
    beats.touch()
    words = ["tif.fit", *WORDS, *SLOW_LOSS, f"run.folder={folder}", "run.name=twice"]
    process = start(*words, TIF_TEST_DELAY=str(5 * HANG), TIF_TEST_BEATS=str(beats))

    def wait_for_beats():
        """Wait until the step has gone on for a while."""
        size = beats.stat().st_size + 5
        wait_until(lambda: process.poll() is not None or beats.stat().st_size >= size)

    wait_for_beats()
    assert (folder / "twice/eval/0/aggregates.json").exists()  # it is the first step
    process.send_signal(signal.SIGINT)
    wait_for_beats()
    assert process.poll() is None  # it waits for the end of the step
    process.send_signal(signal.SIGINT)
    code, lines = end(process)
    assert (code, len(lines)) == (130, 1), lines
    assert not list_checkpoints(folder / "twice" / "checkpoints")


@pytest.fixture
def sweep(tmp_path_factory):
    """Words and folder of a sweep of two slow runs."""
    folder, parent = finished(tmp_path_factory).runs, tmp_path_factory.mktemp("sweep")
    name = parent.name
    base = json.dumps(["quickstart.yaml", *WORDS, *SLOW_LOSS, f"run.folder={folder}"])
    (parent / "s.yaml").write_text(
        f"name: {name}\nbase: {base}\nruns: {{a: [], b: [loss.beta=0.2]}}"
    )
    return ["tif.sweep", str(parent / "s.yaml"), "jobs=2"], [
        folder / name / run / "seed0" for run in "ab"
    ]


def children_of(parent):
    """Return the numbers of a process's children."""
    numbers = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            numbers.append(int(path.parent.name))
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_runs_of_a_sweep_end_with_it_and_write_checkpoints(sweep, number):
    words, folders = sweep
    process = start(*words, TIF_TEST_DELAY="1")
    logs = [folder / "metrics.jsonl" for folder in folders]
    wait_until(
        lambda: all(path.exists() and len(rows(path.parent)) > 1 for path in logs), seconds=2 * HANG
    )
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(number)
    code, lines = end(process)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert len(lines) == (number != signal.SIGKILL), lines
    wait_until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children))
    assert all(list_checkpoints(folder / "checkpoints") for folder in folders)
    assert end(start(*words, TIF_TEST_DELAY="0")) == (0, [])
    assert all((folder / "summary.json").exists() for folder in folders)


@pytest.mark.slow
def test_two_sweeps_of_one_file_share_the_runs(sweep):
    words, folders = sweep
    both = [start(*words[:2], TIF_TEST_DELAY="0.3") for _ in range(2)]
    assert [end(process, 300) for process in both] == [(0, [])] * 2
    for folder in folders:
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["seed0"]
        assert (folder / "summary.json").exists()
