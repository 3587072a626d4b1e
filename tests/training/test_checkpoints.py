"""A run that is killed, asked to stop or loses a checkpoint ends with the bits of another."""

import contextlib
import os
import pathlib
import pickle
import random
import shutil
import signal
import types

import pytest

from tests.support import killed_processes
from tests.support.interrupted_runs import (
    LORA,
    Killed,
    act_in_step,
    assert_same_outcome,
    die,
    killed_run,
    run_words,
    undisturbed_run,
)
from tests.support.run_folders import claimed
from tests.support.small_run import files, finished
from tif import fit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.training import checkpoints, module
from tif.training import run as training
from tif.training.callbacks import evaluation as evaluation_callback
from tif.training.plan import plan_run

pytestmark = pytest.mark.slow


@pytest.fixture
def quiet(tmp_path_factory):
    return undisturbed_run(tmp_path_factory, "quiet")


@pytest.mark.guard
@pytest.mark.parametrize(
    ("step", "more"), [(2, []), (3, []), (5, LORA), (6, ["run.keep_checkpoints=1"])]
)
def test_a_run_killed_within_an_epoch_goes_on_within_it(
    tmp_path_factory, monkeypatch, capsys, step, more
):
    lora = more == LORA
    expected = (
        undisturbed_run(tmp_path_factory, "quiet-lora", *LORA)
        if lora
        else undisturbed_run(tmp_path_factory, "quiet")
    )
    words = run_words(expected.parent, f"killed-{step}", "run.checkpoint_every_n_steps=1", *more)
    with monkeypatch.context() as patch:
        act_in_step(patch, step, die)
        with pytest.raises(Killed):
            fit.main(words)
    capsys.readouterr()
    assert fit.main(words) == 0
    # The checkpoint after step n is named when the next one begins, so that its row is on the disk.
    assert f"(goes on from epoch={step // 4}-step={step}.ckpt)" in capsys.readouterr().out
    assert_same_outcome(expected.parent / f"killed-{step}", expected)


def test_with_lora_a_checkpoint_holds_the_adapters_alone(tmp_path_factory):
    sizes = {}
    for name, more in (("quiet", []), ("quiet-lora", LORA)):
        (newest, *_) = checkpoints.list_checkpoints(
            undisturbed_run(tmp_path_factory, name, *more) / "checkpoints"
        )
        sizes[name] = newest.stat().st_size
    assert sizes["quiet-lora"] < sizes["quiet"] / 3


@pytest.mark.parametrize("number", checkpoints.SIGNALS)
@pytest.mark.parametrize(
    "step", [1, 3, 6]
)  # in the middle of an epoch, in its last step, in the next one
def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on(
    quiet, monkeypatch, capsys, number, step
):
    name = f"asked-{number}-{step}"
    words = run_words(quiet.parent, name)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        act_in_step(patch, step, lambda: os.kill(os.getpid(), number))
        assert fit.main(words) == 128 + number
    assert signal.getsignal(number) == before
    line = f"stopped by {number.name} at step {step + 1}; the same command goes on from there\n"
    assert capsys.readouterr().err == line
    (newest, *_) = checkpoints.list_checkpoints(quiet.parent / name / "checkpoints")
    assert checkpoints.steps_done(newest) == step + 1
    assert fit.main(words) == 0
    assert f"(goes on from {newest.name})" in capsys.readouterr().out
    assert_same_outcome(quiet.parent / name, quiet)


@pytest.mark.parametrize(("epoch", "seconds"), [(0, 0), (1, 0), (2, 0), (1, 60)])
def test_a_run_asked_to_stop_in_an_evaluation_stops_at_once_and_makes_it_again(
    quiet, monkeypatch, capsys, epoch, seconds
):
    name = f"evaluating-{epoch}-{seconds}"
    words = run_words(quiet.parent, name, f"run.checkpoint_every_n_seconds={seconds}")
    with monkeypatch.context() as patch:

        def terminate():
            with contextlib.suppress(Exception):  # as a probe of the model does
                os.kill(os.getpid(), signal.SIGTERM)

        act_in_step(patch, epoch, terminate, evaluation_callback, "evaluate")
        assert fit.main(words) == 128 + signal.SIGTERM
    line = f"stopped by SIGTERM at step {4 * epoch}; the same command goes on from there\n"
    assert capsys.readouterr().err == line
    assert not (quiet.parent / name / "eval" / str(epoch)).exists()
    assert fit.main(words) == 0
    assert (f"(goes on from epoch={epoch}-" in capsys.readouterr().out) == (epoch > 0)
    assert_same_outcome(quiet.parent / name, quiet)


@pytest.mark.parametrize(
    ("seconds_a_step", "expected"), [(0, [16]), (10, [8, 16]), (20, [4, 8, 12, 16])]
)
def test_epochs_that_end_within_a_minute_of_a_checkpoint_have_none_but_the_last(
    quiet, monkeypatch, seconds_a_step, expected
):
    names, clock = [], [100.0]
    real, rename = module.UnlearningModule.training_step, os.replace

    def slow_step(*args):
        clock[0] += seconds_a_step
        return real(*args)

    def log_rename(source, target):
        names.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(module.UnlearningModule, "training_step", slow_step)
    monkeypatch.setattr(checkpoints, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(checkpoints.os, "replace", log_rename)
    words = run_words(quiet.parent, f"slow-{seconds_a_step}", "trainer.max_epochs=4")
    words = [word for word in words if not word.startswith("run.checkpoint_")]  # the default
    assert fit.main([*words, "eval.enabled=false", "run.export=false"]) == 0
    assert [name for name in names if name.endswith(".ckpt")] == [
        f"epoch={step // 4}-step={step}.ckpt" for step in expected
    ]


@pytest.mark.guard
def test_a_run_killed_in_its_first_minute_ends_with_the_bits_of_another(quiet, monkeypatch, capsys):
    words = run_words(quiet.parent, "first-minute", "run.checkpoint_every_n_seconds=60")
    with monkeypatch.context() as patch:
        act_in_step(patch, 6, die)
        with pytest.raises(Killed):
            fit.main(words)
    assert not checkpoints.list_checkpoints(quiet.parent / "first-minute" / "checkpoints")
    assert fit.main(words) == 0
    assert "goes on" not in capsys.readouterr().out
    assert_same_outcome(quiet.parent / "first-minute", quiet)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:-100])])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(quiet, monkeypatch, capsys, harm):
    words, folder = killed_run(quiet, "damaged", monkeypatch)
    newest, older = checkpoints.list_checkpoints(folder / "checkpoints")
    harm(newest)
    capsys.readouterr()
    assert fit.main(words) == 0
    shown = capsys.readouterr().out
    assert f"{newest} is damaged: looking for an older one\n" in shown
    assert f"(goes on from {older.name})" in shown
    assert_same_outcome(folder, quiet)
    shutil.rmtree(folder)


class Payload:
    """What writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self.path, "ran")


def test_a_folder_in_the_place_of_a_checkpoint_is_passed_over_and_not_unpickled(
    quiet, monkeypatch, capsys, tmp_path
):
    words, folder = killed_run(quiet, "foreign", monkeypatch)
    newest, older = checkpoints.list_checkpoints(folder / "checkpoints")
    newest.unlink()
    newest.mkdir()
    payload = pickle.dumps(Payload(tmp_path / "trace"))
    for name in (".metadata", "__0.metadata", "__1.metadata", "meta.pt", "__0_0.distcp"):
        (newest / name).write_bytes(payload)
    assert fit.main(words) == 0
    assert f"(goes on from {older.name})" in capsys.readouterr().out
    assert not (tmp_path / "trace").exists()
    pickle.loads(payload)
    assert (tmp_path / "trace").exists()  # so it would have run
    shutil.rmtree(folder)


def test_a_run_without_a_whole_checkpoint_starts_over(quiet, monkeypatch, capsys):
    words, folder = killed_run(quiet, "all-damaged", monkeypatch)
    for path in checkpoints.list_checkpoints(folder / "checkpoints"):
        damage(path)
    capsys.readouterr()
    assert fit.main(words) == 0
    assert "goes on" not in capsys.readouterr().out
    assert_same_outcome(folder, quiet)


def test_a_checkpoint_can_be_named(quiet, monkeypatch, capsys):
    words, folder = killed_run(quiet, "named", monkeypatch)
    newest, older = checkpoints.list_checkpoints(folder / "checkpoints")
    cfg = config.load(["quickstart.yaml", *words])
    for more, problem in (
        (
            [f"run.resume={folder}/checkpoints/epoch=9-step=9.ckpt"],
            "; want auto, never or a run's checkpoints/epoch=N-",
        ),
        (
            [f"run.resume={folder}/metrics.jsonl"],
            "metrics.jsonl is no run's checkpoint; want <run>/checkpoints/epoch=N-",
        ),
        (
            [f"run.resume={newest}", "loss.beta=0.2"],
            "has loss.beta=0.3, this configuration 0.2; want the same",
        ),
    ):
        with pytest.raises(ConfigError, match="^run.resume: ") as caught:
            plan_run(config.load(["quickstart.yaml", *words, *more]))
        assert problem in str(caught.value)
    with (
        claimed(cfg),
        pytest.raises(ConfigError, match="^run.resume: .*/named is being made by another process$"),
    ):
        training.run(config.load(["quickstart.yaml", *words, f"run.resume={older}"]))
    capsys.readouterr()
    assert fit.main([*words, "run.name=whatever", f"run.resume={older}"]) == 0
    shown = capsys.readouterr().out
    assert f"run: {folder} (goes on from {older.name})" in shown
    assert_same_outcome(folder, quiet)
    assert fit.main([*words, f"run.resume={newest}"]) == 2
    assert capsys.readouterr().err.endswith("/named is finished; there is nothing to go on with\n")


def test_no_more_checkpoints_stay_than_asked_for(quiet):
    assert [path.name for path in checkpoints.list_checkpoints(quiet / "checkpoints")] == [
        "epoch=2-step=8.ckpt",
        "epoch=1-step=4.ckpt",
    ]
    assert {path.parts[0] for path in files(quiet / "checkpoints")} == {
        "epoch=2-step=8.ckpt",
        "epoch=1-step=4.ckpt",
    }


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path, tmp_path_factory):
    where = killed_processes.context()
    source = finished(tmp_path_factory).runs
    shutil.copytree(source / "stages", tmp_path / "stages")
    code, seconds = killed_processes.fit(where, run_words(tmp_path, "undisturbed"))
    assert code == 0
    draw, kills, number = random.Random(20), 0, 0
    moments = [{"after": draw.uniform(0.1, seconds)} for _ in range(8)] + [
        {"at_file": draw.randint(1, 150)} for _ in range(12)
    ]
    draw.shuffle(moments)
    while moments:
        number += 1
        words = run_words(
            tmp_path, f"run{number}", f"run.checkpoint_every_n_steps={draw.choice([1, 3])}"
        )
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            moment = moments.pop() if moments else {}
            code, _ = killed_processes.fit(where, words, **moment)
            kills += code == -signal.SIGKILL
            if not code and moment:
                moments.append(
                    {"at_file": draw.randint(1, 80)}
                )  # it was done before its moment came
        assert code == 0
        assert_same_outcome(tmp_path / f"run{number}", tmp_path / "undisturbed")
    assert kills == 20
    left = {
        path.name
        for path in tmp_path.rglob("*")
        if path.name.endswith((".tmp", ".partial", ".unfinished"))
    }
    assert left <= {path for path in left if path.endswith(".tmp")}
