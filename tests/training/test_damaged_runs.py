"""What a kill or a failing disk damaged is told in a line and made again, with the same bits."""

import os
import shutil
import signal
import zipfile

import pytest

from tests.support.interrupted_runs import (
    Killed,
    assert_same_outcome,
    dies_at,
    killed_run,
    run_words,
    undisturbed_run,
)
from tests.support.small_run import SMALL, files, finished
from tif import fit, report
from tif.training import checkpoints, train


@pytest.fixture
def quiet(tmp_path_factory):
    return undisturbed_run(tmp_path_factory, "quiet")


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.fixture
def stages(tmp_path_factory, tmp_path):
    """A copy of finished stages, and the words of a run beside them."""
    shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / "stages")
    return tmp_path / "stages", [
        *SMALL,
        f"run.folder={tmp_path}",
        "trainer.max_epochs=1",
        "run.export=false",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("target-*/model/model.safetensors", cut), ("target-*/model/model.safetensors", zero),
        ("target-*/model/tokenizer.json", cut), ("target-*/summary.json", cut),
        ("target-*/summary.json", replace_by_device), ("retain-*/model/config.json", os.unlink),
    ],
)  # fmt: skip
def test_a_damaged_stage_is_told_and_made_again_with_the_same_bits(
    tmp_path_factory, stages, capsys, pattern, harm
):
    folder, words = stages
    (path,) = folder.glob(pattern)
    harm(path)
    assert fit.main(words) == 0
    name = pattern.partition("-")[0]
    messages = [line for line in capsys.readouterr().out.splitlines() if "is made again" in line]
    assert len(messages) == 1
    assert messages[0].endswith(f": stage {name} is made again")
    assert str(path) in messages[0]
    stage = path.parents[len(path.relative_to(folder).parts) - 2]
    expected = files(finished(tmp_path_factory).runs / "stages" / stage.name / "model")
    assert files(stage / "model") == expected | {
        name: content
        for name, content in files(stage / "model").items()
        if name.name == "README.md"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forget.json", "aggregates.json"])
@pytest.mark.parametrize("harm", [cut, zero])
def test_damaged_records_of_the_retain_model_are_told_and_made_again(
    tmp_path_factory, stages, capsys, name, harm
):
    folder, words = stages
    where = str(finished(tmp_path_factory).runs).encode()  # the records name the model's folder
    expected = []
    for path in folder.glob(f"retain-*/eval/*/{name}"):
        expected.append(path.read_bytes().replace(where, str(folder.parent).encode()))
        harm(path)
        (path.parent / ".x.json.1.tmp").write_text("of a killed process")
    assert fit.main(words) == 0
    shown = capsys.readouterr().out
    assert ": the records are made again\n" in shown
    read = [
        path for path in folder.glob(f"retain-*/eval/*/{name}") if path.read_bytes() in expected
    ]
    assert read
    assert not any((path.parent / ".x.json.1.tmp").exists() for path in read)


def zero_line(folder):
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[-2] = bytes(len(lines[-2]) - 1) + b"\n"
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))


def lose_rows(folder):
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:-2]))


def other_zip(folder):
    newest = checkpoints.list_checkpoints(folder / "checkpoints")[0]
    with zipfile.ZipFile(newest, "w") as file:
        file.writestr("archive/data.pkl", b"N.")


def older_as_newest(folder):
    newest, older = checkpoints.list_checkpoints(folder / "checkpoints")
    shutil.copy(older, newest)


def other_run(folder):
    """The checkpoint of another run has the same shapes, step and epoch."""
    newest = checkpoints.list_checkpoints(folder / "checkpoints")[0]
    words = [
        *run_words(folder.parent, "other"),
        "run.checkpoint_every_n_steps=1",
        "run.keep_checkpoints=9",
    ]
    assert fit.main([*words, "loss.beta=0.2"]) == 0
    shutil.copy(folder.parent / "other" / "checkpoints" / newest.name, newest)
    shutil.rmtree(folder.parent / "other")


def damaged_records(folder):
    cut(folder / "eval" / "1" / "forget.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (zero_line, "counts on rows that are lost"), (lose_rows, "counts on rows that are lost"),
        (other_zip, "is damaged"), (older_as_newest, "is damaged"), (other_run, "is damaged"),
        (damaged_records, "counts on rows that are lost"),
    ],
)  # fmt: skip
def test_an_older_checkpoint_is_tried_and_the_run_ends_with_the_same_bits(
    quiet, monkeypatch, capsys, harm, message
):
    words, folder = killed_run(quiet, f"harmed-{harm.__name__}", monkeypatch)
    newest = checkpoints.list_checkpoints(folder / "checkpoints")[0]
    harm(folder)
    capsys.readouterr()
    assert fit.main(words) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith(str(newest)))
    assert message in line
    assert line.endswith(": looking for an older one")
    assert f"(goes on from {newest.name})" not in shown
    assert_same_outcome(folder, quiet)


def test_a_run_killed_before_its_table_is_shown_is_finished_and_not_started_anew(
    finished_run, capsys
):
    words = [
        *SMALL,
        f"run.folder={finished_run.runs}",
        "run.name=table",
        "trainer.max_epochs=1",
        "run.export=false",
    ]
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, train, "show_run", lambda args: True)
        patch.setattr(train.run_folder, "SUMMARY_FILE", "never.json")
        with pytest.raises(Killed):
            fit.main(words)
    for file in finished_run.runs.rglob(
        "never.json"
    ):  # SIGKILL, unlike Killed, lets nobody write it
        file.unlink()
    capsys.readouterr()
    assert fit.main(words) == 0
    shown = capsys.readouterr().out
    assert "/table (goes on from epoch=1-" in shown
    assert "Forget questions, before and after" in shown
    assert not (finished_run.runs / "table-2").exists()


def test_the_rows_are_on_the_disk_before_the_checkpoint_that_counts_on_them_has_its_name(
    finished_run, monkeypatch
):
    events = []
    sync, rename = checkpoints.sync, os.replace

    def log_sync(path):
        events.append(path.name)
        sync(path)

    def log_rename(source, target):
        events.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(checkpoints, "sync", log_sync)
    monkeypatch.setattr(checkpoints.os, "replace", log_rename)
    words = [
        *SMALL,
        f"run.folder={finished_run.runs}",
        "run.name=synced",
        "trainer.max_epochs=1",
        "run.export=false",
    ]
    assert fit.main([*words, "eval.enabled=false"]) == 0
    assert events[events.index("epoch=1-step=2.ckpt") - 1] == "metrics.jsonl"


@pytest.mark.parametrize(
    ("file", "harm", "problem"),
    [
        ("eval/retain_model/aggregates.json", cut,
         "eval/retain_model/aggregates.json: not valid JSON"),
        ("eval/retain_model/forget.json", cut, "eval/retain_model/forget.json: not valid JSON"),
        ("eval/tokens.json", cut, "eval/tokens.json: not valid JSON"),
        ("summary.json", zero, "summary.json: not valid JSON"),
        ("config.yaml", zero, "config.yaml: not readable"),
        ("eval/2/forget.json", cut, "eval/2/forget.json: not valid JSON"),
        ("eval/0/aggregates.json", replace_by_folder, "eval/0: no aggregates.json"),
        ("summary.json", replace_by_device, "summary.json: is a device"),
        ("metrics.jsonl", replace_by_folder, "metrics.jsonl: is a folder"),
    ],
)  # fmt: skip
def test_a_report_names_the_damaged_file_and_what_to_delete(
    finished_run, tmp_path, capsys, file, harm, problem
):
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    harm(run / file)
    code, lines = report.main([str(run)]), capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1), lines
    assert f"{run}/{problem}" in lines[0]
    assert "delete" in lines[0]


def test_a_run_that_stores_no_checkpoints_says_that_it_starts_over():
    stored = str(checkpoints.Preempted(signal.SIGTERM, 3, stored_step=3))
    assert stored == "stopped by SIGTERM at step 3; the same command goes on from there"
    lost = str(checkpoints.Preempted(signal.SIGTERM, 3, stored_step=None))
    assert lost == (
        "stopped by SIGTERM at step 3; nothing is stored (run.keep_checkpoints=0), "
        "the same command starts over"
    )
