"""A disk that is full, read-only or loses its caches: one line, and nothing is lost."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest
import safetensors.torch
import torch

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support import killed_processes
from tests.support.interrupted_runs import (
    act_in_step,
    assert_same_outcome,
    killed_run,
    run_words,
    undisturbed_run,
)
from tests.support.run_folders import claimed, start
from tests.support.small_run import SMALL, files, finished
from tests.support.tofu_files import FILES as TOFU
from tif import fit
from tif.config import load as config
from tif.models import load as models
from tif.sweep import command as sweep
from tif.training import checkpoints
from tif.training import run as training
from tif.utils import command_line
from tif.utils import files as writing

FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", where]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a disk here: needs root")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def fill(disk, left=0):
    """Leave so many KB."""
    (disk / "fill").unlink(missing_ok=True)
    with (disk / "fill").open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(disk).free - left * 1024, 1))


def lock(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def read_error(capsys):
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.slow
def test_a_run_that_meets_a_full_disk_says_so_in_one_line_and_goes_on_when_there_is_room(
    disk, tmp_path_factory, capsys
):
    quiet, name = undisturbed_run(tmp_path_factory, "quiet"), "x"
    shutil.copytree(quiet.parent / "stages", disk / "stages")
    shutil.copytree(quiet, disk / "other")
    before, places, steps, words = (
        files(disk),
        set(),
        [],
        run_words(disk, name, "run.checkpoint_every_n_steps=3"),
    )
    for left in (0, 8, 200, *range(290, 1000, 30)):  # KB; a checkpoint has 290
        fill(disk, left)
        if fit.main(words) == 0:
            break
        line = read_error(capsys)
        next_step = "the same command goes on from the last checkpoint"
        assert line.endswith(f": {FULL}; what was complete is there, and {next_step}"), line
        places.add(pathlib.Path(line.split(": ")[0]).relative_to(disk).parts[-2:])
        written = checkpoints.list_checkpoints(disk / name / "checkpoints")
        steps.append(checkpoints.steps_done(written[0]) if written else 0)
        left_over = [
            p.name for p in disk.rglob("*") if p.name.endswith((".partial", ".unfinished", ".tmp"))
        ]
        assert left_over == []
        assert {path: content for path, content in files(disk).items() if path in before} == before
    assert len(places) > 3, places
    assert steps == sorted(steps)
    assert_same_outcome(disk / name, quiet)


def test_an_identifier_that_meets_a_full_disk_leaves_the_old_span_file(disk, capsys):
    (disk / "spans.jsonl").write_text("old")
    fill(disk)
    assert identify.main(["identifier.kind=gold", f"out={disk}/spans.jsonl"]) == 1
    assert read_error(capsys).startswith(
        f"{disk}/spans.jsonl: {FULL}; no file was changed, and the same command goes on"
    )
    assert {str(path): content for path, content in files(disk).items() if path.name != "fill"} == {
        "spans.jsonl": b"old"
    }


@pytest.fixture
def evaluate_words(llama, tmp_path):
    """The words of `tif evaluate` on twelve questions."""
    (tmp_path / "tofu").mkdir()
    for name, rows in TOFU.items():
        (tmp_path / "tofu" / f"{name}.json").write_text("\n".join(json.dumps(row) for row in rows))
    paths = [f"model.path={llama}", f"eval.tofu.path={tmp_path / 'tofu'}"]
    return [*paths, "eval.tofu.split=forget01",
            "eval.max_new_tokens=4",
            "draws=100", "device=cpu"]  # fmt: skip


def test_an_evaluation_that_meets_a_full_disk_goes_on_when_there_is_room(
    disk, evaluate_words, capsys
):
    evaluate_words = [*evaluate_words, f"out={disk}"]
    fill(disk, left=8)
    assert evaluate.main(evaluate_words) == 1
    line = read_error(capsys)
    assert line.startswith(f"{disk}/")
    assert line.endswith(
        f": {FULL}; complete evaluations are stored; the same command continues with the rest"
    )
    (disk / "fill").unlink()
    assert evaluate.main(evaluate_words) == 0
    before = files(disk)
    fill(disk)
    assert evaluate.main(evaluate_words) == 0  # nothing to write
    assert {path: content for path, content in files(disk).items() if path.name != "fill"} == before


def test_a_sweep_that_meets_a_full_disk_tells_each_run_and_the_table(disk, tmp_path, capsys):
    file = tmp_path / "s.yaml"
    base = ["quickstart.yaml", *SMALL, f"run.folder={disk}"]
    file.write_text(f"base: {base!r}\nruns: {{a: [], b: [loss.beta=1]}}")
    fill(disk)
    assert sweep.main([str(file)]) == 1
    *each, last = capsys.readouterr().err.splitlines()
    assert [FULL in line and "/stages/target-" in line for line in each] == [True]
    assert last.endswith(f": {FULL}; the same command goes on with what is missing")


@pytest.mark.slow
def test_a_disk_that_cannot_be_written_to_is_told_before_weights_load(
    disk, evaluate_words, tmp_path, monkeypatch, capsys
):
    for owner, name in ((training, "train"), (models, "load_policy")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("weights were loaded"))
    cfg = config.load(["quickstart.yaml", *run_words(disk, "x")])
    start(disk / "x", cfg)
    lock(disk)
    before, file = files(disk), tmp_path / "s.yaml"
    file.write_text(f"base: [quickstart.yaml, 'run.folder={disk}']\nruns: {{a: []}}")
    for command, words, key in (
        (fit, run_words(disk, "x"), "run.folder"),
        (identify, ["identifier.kind=gold", f"out={disk}/spans.jsonl"], "out"),
        (identify, ["identifier.kind=gold", f"run.folder={disk}"], "run.folder"),
        (evaluate, [*evaluate_words, f"out={disk}/deep/er"], "out"),
        (sweep, [str(file)], "a: run.folder"),
    ):
        assert command.main(words) == 2
        assert read_error(capsys) == f"{key}: {disk} is not writable; give another folder"
    assert files(disk) == before


def test_a_run_in_a_folder_of_its_own_that_cannot_be_written_to_is_told_before_its_stages_are_made(
    disk, tmp_path, monkeypatch, capsys
):
    for owner, name in ((training, "train"), (models, "load_policy")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("weights were loaded"))
    words = run_words(tmp_path, "disk")
    start(disk, config.load(["quickstart.yaml", *words]))
    lock(disk)
    assert fit.main(words) == 2
    assert read_error(capsys) == f"run.name: {disk} is not writable; give another folder"


CACHES = ("references", "stages", "spans")


@pytest.fixture
def identified(tmp_path_factory, tmp_path, llama):
    """A run that has all three caches, undisturbed, in a folder of its own, and its words."""
    shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / "stages")
    more = ["identifier.kind=causal_lm", f"identifier.causal_lm.model={llama}"]
    assert fit.main(run_words(tmp_path, "whole", *more)) == 0
    assert all((tmp_path / name).is_dir() for name in CACHES)
    return tmp_path / "whole", more


def delete(folder):
    for name in CACHES:
        shutil.rmtree(folder / name)


@pytest.mark.slow
def test_caches_that_are_deleted_between_two_starts_of_a_run_change_nothing(
    identified, monkeypatch
):
    expected, more = identified
    words, folder = killed_run(expected, "killed", monkeypatch, 6, *more)
    delete(expected.parent)
    assert fit.main(words) == 0
    assert_same_outcome(folder, expected)
    assert all((expected.parent / name).is_dir() for name in CACHES)


@pytest.mark.slow
def test_caches_that_are_deleted_during_a_run_change_nothing(identified, monkeypatch):
    expected, more = identified
    act_in_step(monkeypatch, 3, lambda: delete(expected.parent))
    assert fit.main(run_words(expected.parent, "robbed", *more)) == 0
    assert_same_outcome(expected.parent / "robbed", expected)


@pytest.mark.slow
def test_a_run_that_needs_a_deleted_stage_again_says_so_and_goes_on_with_a_new_one(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / "stages")
    words = [
        *run_words(tmp_path, "robbed"),
        "eval.kl=true",
    ]  # the original is loaded for each evaluation
    with monkeypatch.context() as patch:
        act_in_step(patch, 3, lambda: shutil.rmtree(tmp_path / "stages"))
        assert fit.main(words) == 2
    assert read_error(capsys).startswith(f"model.path: no folder {tmp_path}/stages/target-")
    assert fit.main(words) == 0
    assert "(goes on from epoch=1-" in capsys.readouterr().out
    assert_same_outcome(
        tmp_path / "robbed", undisturbed_run(tmp_path_factory, "quiet-kl", "eval.kl=true")
    )


def test_reference_scores_whose_folder_is_deleted_while_they_are_made_are_kept_all_the_same(
    tmp_path,
):
    from tests.support import tiny_models
    from tif.models.references import read_or_compute, score_samples

    policy, file = tiny_models.model(), tmp_path / "references" / "scores.safetensors"

    def make():
        shutil.rmtree(file.parent)
        return score_samples(policy, tiny_models.ITEMS, 0, "packed")

    computed = read_or_compute(file, tiny_models.ITEMS, make)
    read = read_or_compute(file, tiny_models.ITEMS, lambda: pytest.fail("made again"))
    for name, rows in computed.items():
        assert all(torch.equal(row, other) for row, other in zip(rows, read[name], strict=True))


def test_a_second_run_by_a_name_in_the_making_says_so_and_gets_another(
    tmp_path_factory, tmp_path, capsys
):
    shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / "stages")
    words = [*run_words(tmp_path, "x"), "trainer.max_epochs=1", "eval.enabled=false"]
    cfg = config.load(["quickstart.yaml", *words])
    with claimed(cfg) as (first, _):
        start(first, cfg)
        before = files(first)
        assert fit.main(words) == 0
        shown = capsys.readouterr().out
        assert f"{first} is being made by another process: this run gets another name\n" in shown
        assert f"run: {first}-2\n" in shown
        assert files(first) == before


@pytest.mark.slow
def test_two_runs_by_one_name_at_the_same_time_both_end_with_the_bits_of_one_alone(
    tmp_path_factory, tmp_path
):
    quiet = undisturbed_run(tmp_path_factory, "quiet")
    where = killed_processes.context()  # no stages yet: one process makes them, the other waits
    both = [
        where.Process(target=killed_processes._fit, args=(run_words(tmp_path, "x"), None, None))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["references", "stages", "x", "x-2"]
    for name in ("x", "x-2"):
        assert_same_outcome(tmp_path / name, quiet)


def test_errors_of_libraries_in_rust_name_the_file_and_other_errors_stay_what_they_are(
    disk, tokenizer
):
    fill(disk)
    for write in (
        lambda: safetensors.torch.save_file({"x": torch.zeros(2000)}, disk / "x"),
        lambda: tokenizer.backend_tokenizer.save(str(disk / "x")),
        lambda: checkpoints.DirectCheckpointIO().save_checkpoint(
            {"x": torch.zeros(2000)}, disk / "x"
        ),
    ):
        with pytest.raises(OSError, match=FULL) as caught, writing.os_errors_naming(disk / "named"):
            write()
        assert caught.value.filename == str(disk / "named")
    for other in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(other)) as caught, writing.os_errors_naming("x"):
            raise other
        assert caught.value is other
    with pytest.raises(ZeroDivisionError):
        command_line.report_os_error(ZeroDivisionError(), "")
