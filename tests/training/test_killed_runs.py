"""A run that dies between its steps goes on; one of another configuration leaves it alone."""

import pathlib
import shutil
import signal

import pytest

from tests.support import killed_processes
from tests.support.interrupted_runs import (
    Killed,
    act_in_step,
    assert_same_outcome,
    die,
    dies_at,
    run_words,
    undisturbed_run,
)
from tests.support.run_folders import claimed
from tests.support.small_run import SMALL, files, finished, rows
from tif import fit
from tif.config import load as config
from tif.models import export
from tif.training import train
from tif.training.callbacks.evaluation import PolicyEvaluation

AIMED = ["run.checkpoint_every_n_steps=1", "run.keep_checkpoints=1", "eval.forget_quality=true"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "owner", "name", "when", "from_epoch"),
    [
        ("epoch-1", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 1, 1),
        ("epoch-2", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 2, 2),
        ("export", export, "export_model", lambda args: args[2].name == "model", 2),
        ("report", train, "write_run_report", lambda args: True, 2),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_rows_of_one_that_was_not(
    finished_run, capsys, place, owner, name, when, from_epoch
):
    words, folder = (
        [*SMALL, f"run.folder={finished_run.runs}", f"run.name=killed-{place}"],
        finished_run.runs / f"killed-{place}",
    )
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, owner, name, when)
        with pytest.raises(Killed):
            fit.main(words)
    assert not (folder / "summary.json").exists()
    capsys.readouterr()
    assert fit.main(words) == 0
    assert (f"(goes on from epoch={from_epoch}-" in capsys.readouterr().out) == (
        from_epoch is not None
    )
    assert rows(folder) == rows(finished_run.folder)
    assert (folder / "model/model.safetensors").read_bytes() == (
        finished_run.folder / "model/model.safetensors"
    ).read_bytes()
    assert set(files(folder)) - set(files(finished_run.folder)) <= {
        pathlib.Path("checkpoints/epoch=1-step=2.ckpt")
    }
    assert set(files(folder)) >= set(files(finished_run.folder))
    assert not folder.with_name(f"{folder.name}-2").exists()


def test_a_run_that_dies_within_an_epoch_goes_on_within_it(finished_run, capsys):
    folder = finished_run.runs / "killed-within"
    words = [*SMALL, f"run.folder={finished_run.runs}", "run.name=killed-within"]
    words += ["run.checkpoint_every_n_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        act_in_step(patch, 1, die)
        with pytest.raises(Killed):
            fit.main(words)
    capsys.readouterr()
    assert fit.main(words) == 0
    assert "(goes on from epoch=0-step=1.ckpt)" in capsys.readouterr().out
    assert rows(folder) == rows(finished_run.folder)


# Every file that a run writes, and its stages, in the order in which they are written first.
STAGE_MOMENTS = (
    ("open", "target.*.config.yaml."), ("os.rename", "target.*/env.json"), ("half a row", 2),
    ("open", "target.*.epoch=2-step=.*unfinished"), ("os.rename", "target.*/epoch=3-step="),
    ("os.rename", "target.*model.partial"), ("os.rename", "target.*/summary.json"),
    ("os.rename", "retain-.*/summary.json"), ("os.rename", "retain-.*eval.*forget.json"),
    ("os.rename", "retain-.*/aggregates.json"),
)  # fmt: skip
MOMENTS = (
    ("os.rename", "x/config.yaml"), ("open", "x/.env.json."),
    ("os.rename", "x/eval/retain_model/aggregates.json"), ("os.rename", "references/"),
    ("os.rename", "x/eval/tokens.json"), ("open", "x/eval/0/.forget.json"),
    ("os.rename", "x/eval/0/aggregates.json"), ("open", "x/metrics.jsonl"), ("half a row", 3),
    ("open", "x/checkpoints/.epoch=0-step=3.ckpt.unfinished"),
    ("os.rename", "x/checkpoints/epoch=1-step=4.ckpt"), ("os.remove", "x/checkpoints/epoch="),
    ("os.rename", "x/eval/1/world_facts.json"), ("half a row", 2),
    ("open", "x/checkpoints/.epoch=2-step=8"), ("open", "x/eval/2/.retain.json"),
    ("open", "x/model.partial/config.json"), ("open", "x/model.partial/README.md"),
    ("os.rename", "x/model.partial"), ("os.rename", "x/report.html"), ("open", "x/.summary.json."),
    ("os.rename", "x/summary.json"),
)  # fmt: skip


def names_of(folder):
    """Return the names of all files, but for locks."""
    return {str(path) for path in files(folder) if path.suffix != ".lock" and path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("moments", [STAGE_MOMENTS, MOMENTS], ids=["stages", "run"])
def test_kills_at_every_file_that_is_written_change_nothing_and_leave_nothing(
    tmp_path, tmp_path_factory, moments
):
    quiet, where = (
        undisturbed_run(tmp_path_factory, "quiet-aimed", *AIMED),
        killed_processes.context(),
    )
    if moments is MOMENTS:
        shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / "stages")
    words = run_words(tmp_path, "x", *AIMED)
    for moment in moments:
        code, _ = killed_processes.fit(where, words, at=moment)
        assert code == -signal.SIGKILL, f"{moment} did not come"
    assert killed_processes.fit(where, words)[0] == 0
    assert_same_outcome(tmp_path / "x", quiet)
    assert names_of(tmp_path / "x") == names_of(quiet)
    stages = {
        path.name: names_of(path) for path in (tmp_path / "stages").iterdir() if path.is_dir()
    }
    for name, names in stages.items():
        # Other tests' runs share the quiet run's stages, and evaluate them by other rules.
        quiet_names = names_of(quiet.parent / "stages" / name)
        others = {file for file in quiet_names if file.startswith("eval/")} - names
        assert names == quiet_names - others
    assert {path.name for path in tmp_path.iterdir()} == {"references", "stages", "x"}


@pytest.mark.guard
@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_end_with_the_same_bits(tmp_path, tmp_path_factory):
    where, moments = killed_processes.context(), (
        {0: ("open", "x/eval/0/.retain.json")}, {1: ("os.mkdir", "x/")}, {0: ("half a row", 3)},
        {0: ("os.rename", "x/checkpoints/epoch=1-step=4.ckpt")},
        {0: ("os.rename", "x/eval/1/aggregates.json")}, {0: ("open", "x/model.partial/README.md")},
        {0: ("os.rename", "x/summary.json")},
    )  # fmt: skip
    for name in ("x", "quiet"):
        shutil.copytree(finished(tmp_path_factory).runs / "stages", tmp_path / name / "stages")
    more = [*AIMED, "trainer.strategy=ddp"]
    assert killed_processes.fit_together(where, run_words(tmp_path / "quiet", "x", *more), 2) == [
        0,
        0,
    ]
    words = run_words(tmp_path / "x", "x", *more)
    for at in moments:
        codes = killed_processes.fit_together(where, words, 2, at=at)
        assert -signal.SIGKILL in codes, f"{at} did not come"
    assert killed_processes.fit_together(where, words, 2) == [0, 0]
    assert_same_outcome(tmp_path / "x" / "x", tmp_path / "quiet" / "x")
    assert names_of(tmp_path / "x") == names_of(tmp_path / "quiet")


@pytest.mark.slow
def test_a_killed_run_is_left_alone_where_resuming_is_off_or_the_configuration_differs(
    finished_run,
):
    words = [
        *SMALL,
        f"run.folder={finished_run.runs}",
        "run.name=left",
        "trainer.max_epochs=1",
    ]
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, PolicyEvaluation, "_evaluate", lambda args: True)
        with pytest.raises(Killed):
            fit.main(words)
    left = files(finished_run.runs / "left")
    for more, name in (
        ([], "left"),
        (["run.resume=never"], "left-2"),
        (["loss.beta=0.2"], "left-2"),
    ):
        with claimed(config.load(["quickstart.yaml", *words, *more])) as (folder, _):
            assert folder.name == name
    assert files(finished_run.runs / "left") == left
