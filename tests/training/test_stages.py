"""Stages: runs of their own, made once, made again only where their weights would differ."""

import shutil

import pytest

from tests.support.interrupted_runs import Killed, dies_at
from tests.support.run_folders import stage_folders
from tests.support.small_run import SMALL, rows
from tif import fit
from tif.config import load as config
from tif.data.samples import Benchmark
from tif.training import module
from tif.training import plan as planning
from tif.training.stages import place_stage


def quickstart(tmp_path, *words):
    return config.load(["quickstart.yaml", f"run.folder={tmp_path}", "run.name=x", *words])


def test_the_folder_of_a_stage_follows_its_training_data_and_weights(tmp_path):
    folder = planning.plan_stage(quickstart(tmp_path), "target").folder
    assert folder.parent == tmp_path / "stages"
    assert folder.name.startswith("target-")
    assert planning.plan_stage(quickstart(tmp_path), "target").folder == folder
    assert (
        planning.plan_stage(quickstart(tmp_path, "data.fictitious.seed=1"), "target").folder
        != folder
    )


def test_another_model_in_the_same_folder_makes_another_stage(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "model.safetensors"
    weights.write_bytes(b"one")
    stage_cfg = config.stage(quickstart(tmp_path, f"stages.target.model.path={model}"), "target")
    samples = Benchmark("", (), (), {})
    before = place_stage(stage_cfg, "target", samples).run.name
    (model / "notes.txt").write_text("no weights")
    assert place_stage(stage_cfg, "target", samples).run.name == before
    weights.write_bytes(b"other")
    assert place_stage(stage_cfg, "target", samples).run.name != before


def test_the_same_samples_split_otherwise_are_another_retain_model_and_the_same_target(tmp_path):
    folders = {}
    for share in (0.1, 0.2):
        settings = quickstart(tmp_path, f"data.fictitious.forget_share={share}")
        for name in ("target", "retain"):
            folders[name, share] = planning.plan_stage(settings, name).folder
    assert folders["target", 0.1] == folders["target", 0.2]
    assert folders["retain", 0.1] != folders["retain", 0.2]


def test_a_request_is_no_key_of_the_stages_of_the_run(tmp_path):
    request = quickstart(tmp_path, "data.request=fictitious/author36/*")
    for name in ("target", "retain"):
        expected = planning.plan_stage(quickstart(tmp_path), name).folder
        assert planning.plan_stage(request, name).folder == expected


@pytest.mark.parametrize(("more", "stages"), [
    (["eval.enabled=false"], ["target"]), (["eval.forget_quality=false"], ["target"]),
    ([], ["target", "retain"]),
])  # fmt: skip
def test_a_retain_model_is_planned_where_something_is_compared_with_it(tmp_path, more, stages):
    assert list(planning.plan_run(quickstart(tmp_path, *more)).stages) == stages


def test_stages_are_runs_of_their_own_without_evaluation(finished_run):
    for name, samples in (("target", "full"), ("retain", "retain")):
        folder = finished_run.runs / "stages" / stage_folders()[name]
        cfg = config.load([str(folder / "config.yaml")])
        assert (cfg.data.train, cfg.loss.forget, cfg.stages, cfg.eval.enabled) == (
            samples,
            "ce",
            {},
            False,
        )
        assert {"model", "summary.json", "metrics.jsonl", "env.json"} <= {
            p.name for p in folder.iterdir()
        }
        losses = [r["train/loss"] for r in rows(folder)]
        assert losses[-1] < losses[0]


def test_the_configuration_of_a_run_names_its_stages_and_not_their_folders(finished_run):
    cfg = config.load([str(finished_run.folder / "config.yaml")])
    assert (cfg.model.path, cfg.eval.retain_records) == ("target", "retain")


@pytest.mark.guard
@pytest.mark.slow
def test_a_stage_is_made_again_only_where_its_weights_would_differ(finished_run):
    base = stage_folders()
    assert all((finished_run.runs / "stages" / name).is_dir() for name in base.values())
    for same in (
        "loss.beta=0.2",
        "eval.max_new_tokens=9",
        "run.name=x",
        "optimizer.lr=0.1",
        "model.reference=frozen",
        "trainer.precision=bf16-mixed",
        "trainer.max_epochs=3",
        "data.batch_size=3",
        "data.batching=padded",
        "model.lora.alpha=3",
        "optimizer.decay=constant",
        "stages.target.model.lora.alpha=3",  # its rank is 0
    ):
        # how the run trains is not how its stages train
        assert stage_folders(same) == base
    for other in (
        "run.seed=1", "data.fictitious.seed=1", "data.max_tokens=64",
        "model.init.hidden_size=16",
    ):  # fmt: skip
        changed = stage_folders(other)
        assert not set(changed.values()) & set(base.values())
    changed = stage_folders("stages.target.optimizer.lr=0.1")
    assert changed["target"] != base["target"]
    assert changed["retain"] == base["retain"]


def test_a_stage_inherits_data_and_devices_and_not_how_the_run_trains():
    words = ["optimizer.lr=7", "trainer.precision=bf16-true", "trainer.devices=3",
             "data.batch_size=5", "data.max_tokens_per_batch=99", "model.dtype=bfloat16",
             "data.template=Q {prompt}"]  # fmt: skip
    target = config.stage(config.load(["quickstart.yaml", *words]), "target")
    assert (target.optimizer.lr, target.trainer.precision, target.data.batch_size) == (
        3e-3,
        "32-true",
        16,
    )
    assert (target.model.dtype, target.trainer.devices) == ("float32", "3")
    assert (target.data.max_tokens_per_batch, target.data.template) == (99, "Q {prompt}")


def test_how_the_run_trains_changes_none_of_its_stages():
    stages = stage_folders()
    for word in ("optimizer.lr=2e-3", "trainer.precision=bf16-mixed", "data.batch_size=3",
                 "model.lora.alpha=5", "model.lora.rank=4", "model.dtype=bfloat16"):  # fmt: skip
        assert stage_folders(word) == stages
    assert stage_folders("stages.target.optimizer.lr=2e-3")["target"] != stages["target"]


@pytest.mark.slow
def test_a_new_stage_of_a_known_name_says_which_key_differs(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run.runs / "stages", tmp_path / "stages")
    capsys.readouterr()
    assert (
        fit.main(
            [*SMALL, f"run.folder={tmp_path}", "stage=target", "stages.target.optimizer.lr=0.02"]
        )
        == 0
    )
    line = f"\nstage target: not {stage_folders()['target']}: optimizer.lr=0.02 (there: 0.01)\n"
    assert line in capsys.readouterr().out


@pytest.mark.slow
def test_a_stage_can_be_pinned_to_a_finished_run(finished_run, tmp_path, capsys):
    pinned = finished_run.runs / "stages" / stage_folders()["target"]
    words = [*SMALL, f"run.folder={tmp_path}", "run.name=pinned", "eval.forget_quality=false",
             f"stages.target.path={pinned}", "stages.target.optimizer.lr=0.5"]  # fmt: skip
    capsys.readouterr()
    assert fit.main(words) == 0
    assert f"stage target: {pinned} (made before)" in capsys.readouterr().out.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir() if path.name == "stages"] == []
    assert (
        rows(tmp_path / "pinned")[0]["forget/probability"]
        == rows(finished_run.folder)[0]["forget/probability"]
    )


def test_a_stage_pinned_to_no_finished_run_is_refused(tmp_path, capsys):
    assert fit.main([*SMALL, f"run.folder={tmp_path}", "stages.target.path=/no/where"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stages.target.path: /no/where is no finished run with a model; want")


@pytest.mark.guard
@pytest.mark.slow
def test_a_killed_stage_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(
    finished_run, tmp_path, capsys
):
    words = [*SMALL, f"run.folder={tmp_path}", "stage=target"]
    with pytest.MonkeyPatch.context() as patch:
        dies_at(
            patch, module.UnlearningModule, "training_step", lambda args: args[0].current_epoch == 2
        )
        with pytest.raises(Killed):
            fit.main(words)
    capsys.readouterr()
    assert fit.main(words) == 0
    assert "(goes on from epoch=2-" in capsys.readouterr().out
    name = stage_folders()["target"]
    stage, expected = tmp_path / "stages" / name, finished_run.runs / "stages" / name
    assert rows(stage) == rows(expected)
    assert (stage / "model/model.safetensors").read_bytes() == (
        expected / "model/model.safetensors"
    ).read_bytes()
    assert not (stage / "checkpoints").exists()


@pytest.mark.slow
def test_a_half_made_stage_is_made_again(finished_run, tmp_path):
    expected = finished_run.runs / "stages" / stage_folders()["retain"]
    half = shutil.copytree(expected, tmp_path / "stages" / expected.name)
    (half / "summary.json").unlink()
    (half / "model" / "model.safetensors").write_bytes(b"half")
    shutil.rmtree(half / "eval")
    words = [*SMALL, f"run.folder={tmp_path}", "stage=retain"]
    assert fit.main(words) == 0
    assert (half / "model/model.safetensors").read_bytes() == (
        expected / "model/model.safetensors"
    ).read_bytes()
    assert rows(half) == rows(expected)
