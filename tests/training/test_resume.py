"""Folders of runs: which name a run gets, where it goes on, what it writes first."""

import os
import pathlib

import pytest
import torch

from tests.support.run_folders import check_folder, claimed, start
from tests.support.small_run import SMALL, finished
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.records import run_folder
from tif.training import resume
from tif.utils.files import write_json_lines


def cfg(tmp_path, *words):
    return config.load(["quickstart.yaml", f"run.folder={tmp_path}", "run.name=x", *words])


def unfinished(folder, made_by, *checkpoints):
    start(folder, made_by)
    rows = [{"epoch": 1, "step": step, "train/loss": 1.0} for step in range(100)]
    write_json_lines(folder / "metrics.jsonl", rows)
    (folder / "checkpoints").mkdir()
    for age, name in enumerate(reversed(checkpoints)):
        path = folder / "checkpoints" / name
        place = {"global_step": int(path.stem.rpartition("=")[2]), "callbacks": {"Checkpoints": {}}}
        torch.save(place, path)
        os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def claim(run_cfg):
    """What a run of this configuration would get."""
    with claimed(run_cfg) as folder_and_checkpoint:
        return folder_and_checkpoint


def test_a_free_name_is_taken_as_it_is(tmp_path):
    assert claim(cfg(tmp_path)) == (tmp_path / "x", None)
    assert claim(cfg(tmp_path)) == (tmp_path / "x", None)  # the first one wrote nothing


def test_a_run_that_is_being_made_is_left_alone_and_its_name_gets_a_number(tmp_path):
    run_cfg = cfg(tmp_path)
    with claimed(run_cfg) as first, claimed(run_cfg) as second:
        start(first[0], run_cfg)
        with claimed(run_cfg) as third:
            assert [folder.name for folder, _ in (first, second, third)] == ["x", "x-2", "x-3"]
    assert claim(run_cfg)[0].name == "x"


def test_names_in_use_get_numbers(tmp_path):
    for name in ("x", "x-2"):
        start(tmp_path / name, cfg(tmp_path))
        (tmp_path / name / run_folder.SUMMARY_FILE).write_text("{}")
    assert claim(cfg(tmp_path)) == (tmp_path / "x-3", None)


def test_an_unfinished_run_of_the_same_configuration_goes_on_from_its_newest_checkpoint(tmp_path):
    run_cfg = cfg(tmp_path)
    names = ["epoch=9-step=90.ckpt", "epoch=10-step=100.ckpt"]
    folder = unfinished(tmp_path / "x", run_cfg, *names)
    assert claim(run_cfg) == (folder, folder / "checkpoints" / names[1])
    assert claim(cfg(tmp_path, "run.resume=never")) == (tmp_path / "x-2", None)
    assert claim(cfg(tmp_path, "loss.beta=0.2")) == (tmp_path / "x-2", None)


def test_an_unfinished_run_without_a_checkpoint_starts_over_in_its_folder(tmp_path):
    run_cfg = cfg(tmp_path)
    assert claim(run_cfg)[0] == unfinished(tmp_path / "x", run_cfg)
    assert claim(run_cfg)[1] is None


def test_an_unfinished_second_run_is_found_behind_a_finished_first(tmp_path):
    run_cfg = cfg(tmp_path)
    start(tmp_path / "x", run_cfg)
    (tmp_path / "x" / run_folder.SUMMARY_FILE).write_text("{}")
    folder = unfinished(tmp_path / "x-2", run_cfg, "epoch=1-step=1.ckpt")
    assert claim(run_cfg) == (folder, folder / "checkpoints" / "epoch=1-step=1.ckpt")


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("years of work")
    assert claim(cfg(tmp_path)) == (tmp_path / "x-2", None)


def test_a_run_folder_in_a_file_or_out_of_reach_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^run\.folder: .*/file is a file; want a folder$"):
        check_folder(cfg(tmp_path, f"run.folder={tmp_path}/file/runs"))
    check_folder(cfg(tmp_path, f"run.folder={tmp_path}/not/yet/there"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_that_is_not_writable_is_refused(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="is not writable"):
        check_folder(cfg(tmp_path, f"run.folder={tmp_path}/locked/runs"))


def test_config_yaml_begins_with_the_command_and_reloads(tmp_path):
    run_cfg = cfg(tmp_path, "run.seed=3")
    start(tmp_path / "x", run_cfg)
    text = (tmp_path / "x" / "config.yaml").read_text()
    assert text.splitlines()[0] == f"# tif fit {tmp_path}/x/config.yaml"
    assert config.load([str(tmp_path / "x" / "config.yaml")]) == run_cfg


def test_a_finished_runs_folder_is_known_as_finished(tmp_path_factory):
    run = finished(tmp_path_factory)
    second = config.load(["quickstart.yaml", *SMALL, f"run.folder={run.runs}"])
    folder, checkpoint = claim(second)
    assert folder != run.folder
    assert checkpoint is None
    newest = pathlib.Path(run.folder / "checkpoints" / "epoch=2-step=4.ckpt")
    assert resume.find_newest_checkpoint(run.folder, second) == newest
