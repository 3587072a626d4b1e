"""tif report: what it shows of a run folder, and that the folder is all it needs."""

import shutil
import subprocess
import sys

import pytest

from tests.support.small_run import files, finished
from tif import report
from tif.records.run_folder import evaluation_rows
from tif.reports.summary import summarize


@pytest.fixture
def run(tmp_path_factory, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished(tmp_path_factory).folder, tmp_path / "run [bold]1[/] :smile:")


def test_the_command_makes_table_and_report_again_from_the_folder_alone(run):
    before = files(run)
    (run / "report.html").unlink()
    command = [sys.executable, "-m", "tif.report", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "retain" in done.stdout
    assert f"run folder: {run}" in done.stdout.splitlines()
    assert set(files(run)) == set(before)
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_the_command_needs_no_torch(run):
    code = (
        "import sys; from tif import report; report.main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_run_is_told_in_one_line(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: no run folder (no metrics.jsonl in it)\n"
    assert report.main([]) == 2
    assert report.main(["--help"]) == 0


def test_a_run_that_is_still_going_is_reported_up_to_its_last_whole_row(run, capsys):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[:-20])
    (run / "summary.json").unlink()
    assert report.main([str(run)]) == 0
    assert len(evaluation_rows(run)) == 2
    assert "after 1 epoch" in " ".join(capsys.readouterr().out.split())


def test_a_run_without_evaluations_is_reported_by_its_folder(run, capsys):
    lines = (run / "metrics.jsonl").read_text().splitlines(True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if "train/loss" in line))
    assert report.main([str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "optimizer steps: 4 made, 4 planned"
    first = lines.index(f"run folder: {run}")
    assert lines[first + 1 : first + 3] == [
        f"see it: open '{run}/report.html'",
        f"ask it: tif chat '{run}'",
    ]
    assert summarize(run)["start"] is None


def test_a_folder_of_runs_is_refused_with_the_runs_in_it(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("")
    assert report.main([str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"; want {tmp_path}/" in line


def test_a_path_that_no_file_can_have_is_one_line(capsys):
    assert report.main(["a" * 300]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "File name too long" in line
