"""A run that dies between its steps goes on; one of another configuration leaves it alone."""

import pathlib

import pytest

from tests.support.interrupted_runs import Killed, dies_at
from tests.support.run_folders import claimed
from tests.support.small_run import SMALL, files, rows
from tif import fit
from tif.config import load as config
from tif.models import export
from tif.training import run as training
from tif.training.callbacks.evaluation import PolicyEvaluation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "owner", "name", "when", "from_epoch"),
    [
        ("epoch-1", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 1, 1),
        ("epoch-2", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 2, 2),
        ("export", export, "export_model", lambda args: args[2].name == "model", 2),
        ("plots", training, "write_plots", lambda args: True, 2),
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
