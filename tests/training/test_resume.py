"""Folders of runs and stages: which name a run gets, where it goes on, what it writes first."""

import json
import os
import pathlib

import pytest
import torch

from tests.support.run_folders import check_folder, claimed, start
from tests.support.small_run import SMALL, finished
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.data.samples import Benchmark
from tif.records import run_folder
from tif.training import plan as planning
from tif.training import resume
from tif.training.stages import place_stage
from tif.utils import environment
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


def test_the_environment_is_plain_json_with_versions_and_hardware():
    env = environment.describe_environment()
    assert json.loads(json.dumps(env)) == env
    assert env["python"].startswith("3.")
    assert set(env) == {"tif", "commit", "command", "started", "python", "packages", "host"}


def test_the_commit_is_told_and_missing_outside_a_checkout(monkeypatch):
    monkeypatch.setattr(environment, "__file__", "/proc/runs.py")
    assert environment.read_commit() is None


def test_the_folder_of_a_stage_follows_its_training_data_and_weights(tmp_path):
    folder = planning.plan_stage(cfg(tmp_path), "target").folder
    assert folder.parent == tmp_path / "stages"
    assert folder.name.startswith("target-")
    assert planning.plan_stage(cfg(tmp_path), "target").folder == folder
    assert planning.plan_stage(cfg(tmp_path, "data.fictitious.seed=1"), "target").folder != folder


def test_another_model_in_the_same_folder_makes_another_stage(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"one")
    stage_cfg = config.stage(cfg(tmp_path, f"stages.target.model.path={model}"), "target")
    samples = Benchmark("", (), (), {})
    before = place_stage(stage_cfg, "target", samples).run.name
    (model / "notes.txt").write_text("no weights")
    assert place_stage(stage_cfg, "target", samples).run.name == before
    weights.write_bytes(b"other")
    assert place_stage(stage_cfg, "target", samples).run.name != before


def test_the_same_samples_split_otherwise_are_another_retain_model_and_the_same_target(tmp_path):
    folders = {}
    for share in (0.1, 0.2):
        settings = cfg(tmp_path, f"data.fictitious.forget_share={share}")
        for name in ("target", "retain"):
            folders[name, share] = planning.plan_stage(settings, name).folder
    assert folders["target", 0.1] == folders["target", 0.2]
    assert folders["retain", 0.1] != folders["retain", 0.2]


def test_a_request_is_no_key_of_the_stages_of_the_run(tmp_path):
    request = cfg(tmp_path, "data.request=fictitious/author36/*")
    for name in ("target", "retain"):
        expected = planning.plan_stage(cfg(tmp_path), name).folder
        assert planning.plan_stage(request, name).folder == expected


def test_a_finished_runs_folder_is_known_as_finished(tmp_path_factory):
    run = finished(tmp_path_factory)
    second = config.load(["quickstart.yaml", *SMALL, f"run.folder={run.runs}"])
    folder, checkpoint = claim(second)
    assert folder != run.folder
    assert checkpoint is None
    newest = pathlib.Path(run.folder / "checkpoints" / "epoch=2-step=4.ckpt")
    assert resume.find_newest_checkpoint(run.folder, second) == newest


@pytest.mark.parametrize(("more", "stages"), [
    (["eval.enabled=false"], ["target"]), (["eval.forget_quality=false"], ["target"]),
    ([], ["target", "retain"]),
])  # fmt: skip
def test_a_retain_model_is_planned_where_something_is_compared_with_it(tmp_path, more, stages):
    assert list(planning.plan_run(cfg(tmp_path, *more)).stages) == stages
