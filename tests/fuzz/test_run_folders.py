"""Damaged run folders: no command ends in a traceback, prints more than lines or hangs."""

import contextlib
import random
import shutil

import pytest

import tif.evaluate as evaluate
from tests.support import damaged_files
from tests.support.hangs import no_hang
from tests.support.small_run import SMALL, finished
from tif import fit, report
from tif.records import run_folder
from tif.training import run as training
from tif.utils.files import remove

QUICK, TOTAL = 8, 328  # damaged folders


class Started(Exception):
    """A training would begin now."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with three checkpoints and its stages, and a copy of all that as it was."""
    runs = tmp_path_factory.mktemp("damaged") / "runs"
    shutil.copytree(finished(tmp_path_factory).runs / "stages", runs / "stages")
    assert fit.main([*words(runs)]) == 0
    shutil.copytree(runs, runs.with_name("as it was"))
    return runs


def words(runs):
    keys = [
        "run.name=x",
        "run.keep_checkpoints=3",
        "run.checkpoint_every_n_steps=1",
        "eval.max_samples.forget=4",
    ]
    return [*SMALL, f"run.folder={runs}", *keys]


def restore(runs):
    shutil.rmtree(runs)
    shutil.copytree(runs.with_name("as it was"), runs)


def read_files(runs, folder):
    """Return the files of a folder that a command reads: of a run, not its model and plots."""
    paths = [
        path
        for path in sorted((runs / folder).rglob("*"))
        if path.is_file() and path.name != ".lock"
    ]
    unread = ("model", "report.html")
    return [
        path
        for path in paths
        if folder != "x" or path.relative_to(runs / folder).parts[0] not in unread
    ]


@contextlib.contextmanager
def no_training(monkeypatch):
    def start(*args):
        raise Started

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", start)
        yield


def commands(runs, draw):
    """Yield two commands on the folder, each as (name, function that returns its exit code)."""
    run, stages = runs / "x", runs / "stages"
    records = next(stages.glob("retain-*/eval/*"), stages)
    epoch = run / "eval" / draw.choice(["0", "1", "2"])
    if draw.random() < 0.5:
        yield "report", lambda: report.main([str(run)])
    else:
        yield (
            "evaluate",
            lambda: evaluate.main([f"records={epoch}", f"retain_records={records}", "draws=100"]),
        )
    if draw.random() < 0.8:  # an unfinished run
        remove(run / run_folder.SUMMARY_FILE)
    name = draw.choice(
        ["auto", "epoch=2-step=4.ckpt", "epoch=1-step=3.ckpt", "epoch=1-step=2.ckpt", "x"]
    )
    if name == "auto":
        yield "fit", lambda: fit.main(words(runs))
    else:
        yield "resume", lambda: fit.main([*words(runs), f"run.resume={run}/checkpoints/{name}"])


def check_case(runs, seed, monkeypatch, capfd):
    """Damage one or two files and give two commands."""
    restore(runs)
    draw = random.Random(seed)
    folder = draw.choice(["x", "x", "x", "stages"])
    done = []
    for _ in range(draw.choice([1, 1, 2])):
        paths = read_files(runs, folder)
        if not paths:  # the first damage took them all
            break
        done.append(damaged_files.damage(draw.choice(paths), draw, paths))
    for name, command in commands(runs, draw):
        case = f"seed {seed}, {', '.join(done)}: {name}"
        capfd.readouterr()
        with no_hang(), no_training(monkeypatch):
            try:
                code = command()
            except Started:
                code = 0
            except Exception as error:
                raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        lines = capfd.readouterr().err.splitlines()
        assert code in (0, 1, 2), case
        assert bool(lines) == (code != 0), (case, lines)
        assert len(lines) <= 25, (case, lines)  # a line for each unknown key of another file
        assert all(len(line) < 1500 for line in lines), (case, lines)


def test_a_damaged_run_folder_is_told_in_lines(runs, monkeypatch, capfd):
    for seed in range(QUICK):
        check_case(runs, seed, monkeypatch, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_many_damaged_run_folders_are_told_in_lines(runs, monkeypatch, capfd, part):
    for seed in range(QUICK + part, TOTAL, 16):
        check_case(runs, seed, monkeypatch, capfd)
