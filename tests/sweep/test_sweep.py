"""`tif sweep`: the runs of a file, what is run and what is not run again."""

import json
import shlex

import pytest

from tests.support.small_run import SMALL, files, finished, rows
from tif import fit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.metrics import overall
from tif.records import run_folder
from tif.records.run_folder import evaluation_rows
from tif.sweep import command as sweep
from tif.sweep.run import stage_configs
from tif.sweep.sweep_file import load_configs, read_sweep
from tif.training import run as training

EXPERIMENTS = config.own_configs() / "experiment"
# Stages of one seed only, those of the session's finished run.
BASE = [
    *SMALL, "trainer.max_epochs=1", "stages.target.run.seed=0", "stages.retain.run.seed=0",
    "run.export=false",
]  # fmt: skip
WORDS = json.dumps(["quickstart.yaml", *BASE])


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(path, text, *words):
    with pytest.raises(ConfigError) as caught:
        read_sweep([write(path / "odd.yaml", text), *words])
    return str(caught.value).splitlines()


def test_runs_that_share_a_stage_have_one_task_for_it_and_another_learning_rate_another(tmp_path):
    three = "{a: [], b: [loss.beta=0.7], c: [stages.target.optimizer.lr=1]}"
    text = f"base: [quickstart.yaml]\nseeds: [0, 1]\nruns: {three}"
    configs = load_configs(read_sweep([write(tmp_path / "s.yaml", text)]))
    seeds = {}
    for name in ("target", "retain"):
        seeds[name] = sorted(cfg.run.seed for cfg in stage_configs(configs, name))
    assert seeds == {"target": [0, 0, 1, 1], "retain": [0, 1]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    sorted(set(EXPERIMENTS.glob("*.yaml")) - {EXPERIMENTS / "wandb.yaml"}),
    ids=lambda p: p.stem,
)
def test_every_experiment_describes_runs_that_load_and_names_both_commands(path):
    runs = read_sweep([str(path), "identifier.path=masks"])
    name = f"experiment/{path.name}"
    count = f"$(( $(tif sweep {name} --count) - 1 ))"
    # Requests come one after the other: one job.
    array = "" if path.stem == "requests" else f"--array=0-{count}%8 "
    commands = [f"# tif sweep {name}", f"# sbatch {array}slurm/sweep.sbatch {name}"]
    assert path.read_text().splitlines()[:2] == commands
    names = [cfg.run.name for cfg in load_configs(runs)]
    assert len(set(names)) == len(names) > 1


@pytest.mark.slow
def test_a_wandb_agent_calls_tif_with_words_that_load():
    from wandb.sdk.launch.sweeps.utils import (
        create_sweep_command,
        create_sweep_command_args,
        load_sweep_config,
    )

    file = load_sweep_config(str(EXPERIMENTS / "wandb.yaml"))
    # str(1e-05) has no point
    values = {"loss.beta": 0.05, "loss.pl_weight": 0.0, "optimizer.lr": 1e-05}
    assert file["parameters"].keys() == values.keys()
    arguments = {name: {"value": value} for name, value in values.items()}
    parts = create_sweep_command_args({"args": arguments})
    # As wandb's agent does.
    parts |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [file["program"]]}
    words = []
    for part in create_sweep_command(file["command"]):
        words += parts.get(part[2:-1], [part])
    assert words[:4] == ["/usr/bin/env", "python", "-m", "tif.fit"]
    cfg = config.load(words[4:])
    assert (cfg.loss.beta, cfg.loss.pl_weight, cfg.optimizer.lr) == (0.05, 0.0, 1e-05)
    stages = [config.stage(cfg, name) for name in ("target", "retain")]
    assert [c.logger.wandb.enabled for c in (cfg, *stages)] == [True, False, False]
    assert file["metric"]["name"] == f"best/choice/{overall.SCORE}"


def test_the_quickstart_sweep_has_every_method():
    names = {run.variant for run in read_sweep([str(EXPERIMENTS / "methods_quickstart.yaml")])}
    same = {"ga_gdr": "graddiff"}  # an alias
    methods = {p.stem for p in (EXPERIMENTS.parent / "loss").glob("*.yaml")} - {"finetune"}
    assert {same.get(name, name) for name in methods} == names


@pytest.mark.slow
def test_the_headline_trains_one_target_and_one_retain_model_and_its_numbers_choose_as_it_says():
    runs = read_sweep(
        [str(EXPERIMENTS / "headline.yaml"), "data.path=tofu", "identifier.path=masks"]
    )
    assert len(runs) == 8 * 3
    chosen = {(runs[i].variant, runs[i].seed) for i in (0, 3, 6, 9)}
    methods = ("tpo_recommended", "tpo", "npo_gdr", "simnpo_gdr")
    assert chosen == {(method, 0) for method in methods}
    more = {(runs[i].variant, runs[i].seed) for i in (0, 1, 2, 3, 6, 9, 12, 15)}
    others = {
        ("tpo_recommended", 1),
        ("tpo_recommended", 2),
        ("tpo_centred", 0),
        ("tpo_released", 0),
    }
    assert more == chosen | others
    configs = load_configs(runs[:4])
    assert [cfg.run.seed for cfg in configs] == [0, 1, 2, 0]
    assert [len(stage_configs(configs, name)) for name in ("target", "retain")] == [1, 1]
    assert [cfg.loss.lpl_baseline for cfg in configs] == ["mean", "mean", "mean", "none"]


def test_runs_times_grid_times_seeds_with_the_commands_words_last(tmp_path):
    text = (
        "base: [quickstart.yaml]\nseeds: [3, 4]\nruns: {a: [loss.beta=0.2], b: []}\n"
        "grid: {optimizer.lr: [1e-3, 2e-3]}"
    )
    runs = read_sweep([write(tmp_path / "my.yaml", text), "trainer.max_epochs=2"])
    variants = ["a,lr=0.001", "a,lr=0.002", "b,lr=0.001", "b,lr=0.002"]
    assert [run.variant for run in runs[::2]] == [run.variant for run in runs[1::2]] == variants
    cfg = load_configs(runs)[3]
    assert (cfg.loss.beta, cfg.optimizer.lr) == (0.2, 2e-3)
    assert (cfg.trainer.max_epochs, cfg.run.seed) == (2, 4)
    assert cfg.run.name == "my/a,lr=0.002/seed4"
    runs = read_sweep([str(tmp_path / "my.yaml"), "seeds=[7]", "trainer.max_epochs=2"])
    assert [(run.variant, run.seed) for run in runs] == [(variant, 7) for variant in variants]
    assert load_configs(runs)[3].trainer.max_epochs == 2
    with pytest.raises(ConfigError, match="^seeds: want"):
        read_sweep([str(tmp_path / "my.yaml"), "seeds=[x]"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("runs: {a: []}\nseed: [1]", "seed: unknown key; did you mean seeds?"),
        ("seeds: [0]", "runs: nothing to run; want runs or grid"),
        ("runs: {a: []}\nseeds: []", "seeds: want at least one"),
        ("runs: [a]", "runs: want"),
        ("runs: {a: []}\nseeds: [x]", "seeds: want"),
        ("grid: {loss.beta: 3}", "grid: want"),
        ("runs: {a: []}\nepoch: first", "epoch: want one of best, last"),
        ("runs: {a: []}\ncolumns: [quality]", "columns: want metrics as utility/kept, got quality"),
        ("runs: {a: []}\nplots: {p: [loss.beat, forget/quality]}", "plots.p: want [x, y], metrics"),
        ("runs: {a: []}\npaths: {p: [loss.beta, forget/quality]}", "paths.p: want [x, y], metrics"),
        ("base: [[]]\nruns: {a: []}", "base: want a list of texts, got [[]]"),
        ("runs: {a: []}\ncolumns: [[a/b]]", "columns: want a list of texts, got [['a/b']]"),
        ("runs: {a: []}\nplots: {../../X: [a/b, c/d]}", "plots: want a name (no /, "),
        ("runs: {a: []}\npaths: {/tmp/X: [a/b, c/d]}", "paths: want a name (no /, "),
        (
            "runs: {a: []}\nplots: {p: [a/b, c/d]}\npaths: {p: [a/b, c/d]}",
            "paths.p: plots has one of that name",
        ),
    ],
)
def test_a_file_that_describes_no_sweep_is_told_in_one_line(tmp_path, text, line):
    (actual,) = problems(tmp_path, text)
    assert line in actual


def test_a_grid_of_a_thousand_million_runs_is_refused_by_arithmetic(tmp_path, capsys):
    ten = list(range(10))
    grid = "".join(f"  data.key{i}: {ten}\n" for i in range(9))
    file = write(tmp_path / "s.yaml", f"seeds: [0, 1]\ngrid:\n{grid}")
    expected = "grid: 1 runs x 1,000,000,000 points x 2 seeds are 2,000,000,000 runs, want at most"
    for option in ("--count", "--list", "--table"):
        assert sweep.main([file, option]) == 2
        assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("number", ["²", "1" * 5000, "0", "-1", "x"])
def test_a_number_that_is_none_is_one_line(tmp_path, capsys, number):
    file = write(tmp_path / "s.yaml", "base: [quickstart.yaml]\nruns: {a: []}")
    assert sweep.main([file, f"jobs={number}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jobs: want a number from 1 to 10000, got ")
    assert len(line) < 200


def test_all_runs_are_checked_before_the_first_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("weights were loaded"))
    file = write(
        tmp_path / "s.yaml",
        "base: [quickstart.yaml]\nruns: {a: [], b: [loss.beat=1], c: [loss.beta=0]}",
    )
    assert sweep.main([file]) == 2
    expected = [
        "b: loss.beat: unknown key; did you mean loss.beta?",
        "c: loss.beta: must be > 0, got 0.0",
    ]
    assert capsys.readouterr().err.splitlines() == expected
    file = write(tmp_path / "s.yaml", "base: [quickstart.yaml]\nruns: {a: [], b: [loss/rmu.yaml]}")
    assert sweep.main([file]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "b: loss.rmu.layer: the model has layers 0 to 3, got 7"
    ]
    assert not (tmp_path / "runs").exists()
    assert sweep.main(["no.yaml"]) == 2
    assert sweep.main(["loss.beta=1"]) == 2


def test_each_configuration_is_read_once_however_many_runs_there_are(tmp_path, monkeypatch):
    loaded, started, load = [], [], config.load
    monkeypatch.setattr(config, "load", lambda words: loaded.append(words) or load(words))
    monkeypatch.setattr(training, "run", lambda cfg, *_, **__: started.append(cfg.run.name))
    base = f"name: s\nbase: [quickstart.yaml, run.folder={tmp_path}]"
    text = f"{base}\nseeds: [0, 1]\nruns: {{a: [], b: [], c: []}}"
    assert sweep.main([write(tmp_path / "s.yaml", text)]) == 0
    assert started == [f"s/{name}/seed{seed}" for name in "abc" for seed in (0, 1)]
    assert len(loaded) == 6


def test_a_run_may_start_from_the_model_of_a_run_before_it_in_the_file(
    tmp_path, monkeypatch, capsys
):
    started = []
    monkeypatch.setattr(
        training, "run", lambda cfg, *_, **__: started.append((cfg.run.name, cfg.model.path))
    )
    base = f"name: s\nbase: [quickstart.yaml, run.folder={tmp_path}]\nseeds: [3]"
    model = r'"model.path=\\${run.folder}/s/a/seed\\${run.seed}/model"'
    text = f"{base}\nruns: {{a: [], b: [{model}]}}"
    assert sweep.main([write(tmp_path / "s.yaml", text)]) == 0
    assert started == [("s/a/seed3", "target"), ("s/b/seed3", f"{tmp_path}/s/a/seed3/model")]
    text = f"{base}\nruns: {{b: [{model}], a: []}}"  # not before it
    assert sweep.main([write(tmp_path / "s.yaml", text)]) == 2
    assert "b: model.path" in capsys.readouterr().err


def test_list_and_count_show_the_runs_and_make_none(tmp_path, capsys):
    file = write(tmp_path / "s.yaml", "base: [quickstart.yaml]\nruns: {a: [], b: [loss.beta=1]}")
    assert sweep.main([file, "--list"]) == 0
    expected = ["0 a/seed0: tif fit quickstart.yaml run.seed=0",
                "1 b/seed0: tif fit quickstart.yaml loss.beta=1 run.seed=0"]  # fmt: skip
    assert capsys.readouterr().out.splitlines() == expected
    assert sweep.main([file, "--count"]) == 0
    assert capsys.readouterr().out == "2\n"


def test_a_listed_line_is_a_command_that_a_shell_understands(tmp_path, capsys):
    text = r"""base: [quickstart.yaml]
runs: {a: ['data.template="Q: {prompt} A:"', 'data.path=\${model.base}/x', data.benchmark=text]}"""
    assert sweep.main([write(tmp_path / "s.yaml", text), "model.base=y", "--list"]) == 0
    line = capsys.readouterr().out.removeprefix("0 a/seed0: tif fit ")
    assert shlex.split(line) == [
        "quickstart.yaml", 'data.template="Q: {prompt} A:"', "data.path=${model.base}/x",
        "data.benchmark=text", "model.base=y", "run.seed=0",
    ]  # fmt: skip


def test_a_table_of_no_finished_run_is_refused_and_leaves_the_results_that_are_there(
    tmp_path, capsys
):
    file = write(tmp_path / "s.yaml", "name: two\nbase: [quickstart.yaml]\nruns: {a: []}")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "results.json").write_text("{}")
    assert sweep.main([file, f"run.folder={tmp_path}", "--table"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/two: no finished run")
    assert (tmp_path / "two" / "results.json").read_text() == "{}"


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """Words and folder of a sweep of two methods and two seeds, beside the finished run."""
    folder = finished(tmp_path_factory).runs
    text = f"name: two\nbase: {WORDS}\nseeds: [0, 1]\nruns: {{tpo: [], dpo: [loss/dpo_klr.yaml]}}"
    words = [write(tmp_path_factory.mktemp("sweep") / "s.yaml", text), f"run.folder={folder}"]
    stages = sorted(p.name for p in (folder / "stages").iterdir())
    assert sweep.main(words) == 0
    assert (
        sorted(p.name for p in (folder / "stages").iterdir()) == stages
    )  # shared with the finished run
    return words, folder / "two"


@pytest.mark.slow
def test_a_sweep_leaves_its_runs_table_numbers_and_plot(done):
    _, folder = done
    names = sorted(p.name for p in folder.iterdir())
    assert names == [".lock", "dpo", "figures", "report.html", "results.json", "table.md", "tpo"]
    tables = (folder / "table.md").read_text().split("\n\n")
    short, full = ([line.split(" | ")[0] for line in table.splitlines()] for table in tables)
    assert sorted(short[2:4]) == ["| dpo", "| tpo"]  # the only epoch is the best and the last
    assert short[4:] == ["| before", "| retain model"]
    assert full[2:] == short[2:]
    results = json.loads((folder / "results.json").read_text())["runs"]["dpo"]
    values = [
        evaluation_rows(folder / "dpo" / f"seed{s}")[-1]["forget/probability"] for s in (0, 1)
    ]
    assert results["last"]["forget/probability"]["values"] == values
    assert values[0] != values[1]


@pytest.mark.slow
def test_finished_runs_are_not_run_again_and_unfinished_ones_are(done, monkeypatch):
    words, folder = done
    before, rerun = files(folder), []
    monkeypatch.setattr(
        training,
        "run",
        lambda cfg, *_, **__: rerun.append(cfg.run.name) or folder / "tpo" / "seed1",
    )
    assert sweep.main(words) == 0
    assert rerun == []
    assert files(folder) == before
    summary = folder / "tpo" / "seed1" / run_folder.SUMMARY_FILE
    text = summary.read_text()
    summary.unlink()
    try:
        assert sweep.main(words) == 0
    finally:
        summary.write_text(text)
    assert rerun == ["two/tpo/seed1"]


@pytest.mark.slow
def test_a_run_whose_loss_is_not_finite_is_left_out_and_the_others_go_on(done, monkeypatch, capsys):
    words, folder = done

    def explode(*_, **__):
        raise FloatingPointError("loss is nan at step 3")

    monkeypatch.setattr(training, "run", explode)
    assert (
        sweep.main([*words, "loss.beta=0.7", "run.name=x"]) == 1
    )  # other runs than those that are there
    assert capsys.readouterr().err.count("loss is nan at step 3") == 4
    monkeypatch.undo()
    assert sweep.main(words) == 0  # and the results are those of the file again


@pytest.mark.slow
def test_two_runs_at_a_time_are_the_runs_of_the_file_and_one_that_fails_is_named(
    tmp_path_factory, tmp_path, capsys
):
    folder = finished(tmp_path_factory).runs
    bad = [
        "optimizer.lr=1e38",
        "optimizer.warmup_epochs=0",
        "trainer.gradient_clip_val=null",
        "trainer.max_epochs=2",
    ]
    text = f"name: jobs\nbase: {WORDS}\nruns: {{a: [loss.beta=0.2], b: [], bad: {json.dumps(bad)}}}"
    file = write(tmp_path / "s.yaml", text)
    assert sweep.main([file, f"run.folder={folder}", "jobs=2"]) == 1
    shown = capsys.readouterr().out
    assert "jobs/a/seed0: done\n" in shown
    assert "jobs/b/seed0: done\n" in shown
    assert "jobs/bad/seed0: failed, exit code 1: loss is nan at step 1 (" in shown
    assert sorted(p.name for p in (folder / "jobs" / "log").iterdir()) == [
        "0.txt",
        "1.txt",
        "2.txt",
    ]
    assert fit.main([*BASE, f"run.folder={folder}", "run.name=alone", "loss.beta=0.2"]) == 0
    for row, expected in zip(
        rows(folder / "jobs" / "a" / "seed0"), rows(folder / "alone"), strict=True
    ):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert set(json.loads((folder / "jobs" / "results.json").read_text())["runs"]) == {
        "a",
        "b",
        "bad",
    }
