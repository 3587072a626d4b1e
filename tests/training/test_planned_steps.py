"""The number of optimizer steps that a plan promises is the number that real runs make."""

import json

import pytest

from tests.support.small_run import SMALL
from tif import fit, report
from tif.config import load as config
from tif.records import run_folder
from tif.reports import sweep
from tif.training.plan import count_steps, plan_run, plan_stage

# 7 authors with 3 questions: 21 samples, of which 9 are forgotten; the target model learns 100
# facts of the background too.
ODD = [
    *SMALL, "eval.enabled=false", "run.export=false", "run.checkpoint_every_n_steps=null",
    "data.fictitious.authors=7", "data.fictitious.questions_per_author=3",
    "data.fictitious.forget_share=0.43",
]  # fmt: skip


def steps_made(folder):
    rows = run_folder.training_rows(folder)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    return len(rows)


@pytest.mark.parametrize(
    ("words", "in_stage", "in_run"),
    [
        # 121 samples in batches of 50 are 3 batches, 9 in batches of 4 are 3.
        (["stages.target.data.batch_size=50", "trainer.max_epochs=3"], 3 * 4, 3 * 3),
        # Parts of a batch take one step together.
        (["data.batch_size=8", "data.max_tokens_per_batch=64", "trainer.max_epochs=1"], 31 * 4, 2),
        # A batch may be larger than the set.
        (["data.batch_size=100", "trainer.max_epochs=5"], 31 * 4, 5),
    ],
)
def test_the_planned_steps_are_the_steps_that_are_made(tmp_path, words, in_stage, in_run):
    words = [*ODD, *words, f"run.folder={tmp_path}"]
    plan = plan_run(config.load(["quickstart.yaml", *words]))
    assert count_steps(plan) == in_run
    assert count_steps(plan.stages["target"]) == in_stage
    assert fit.main(words) == 0
    assert steps_made(plan.folder) == in_run
    assert steps_made(plan.stages["target"].folder) == in_stage


def test_long_samples_count_as_their_pieces(tmp_path):
    words = [*ODD, "data.max_tokens=20", "trainer.max_epochs=1", f"run.folder={tmp_path}"]
    plan = plan_run(config.load(["quickstart.yaml", *words]))
    planned = count_steps(plan)
    assert planned > 3  # the batches of whole samples
    assert fit.main(words) == 0
    assert steps_made(plan.folder) == planned
    assert steps_made(plan.stages["target"].folder) == count_steps(plan.stages["target"])


def test_a_run_on_a_model_that_is_there_counts_with_its_tokenizer(finished_run, tmp_path):
    model = finished_run.target / "model"
    words = ["quickstart.yaml", *ODD, f"model.path={model}", "data.max_tokens=20"]
    words.append(f"run.folder={tmp_path}")
    plan = plan_run(config.load(words))
    assert not plan.stages
    assert fit.main(words) == 0
    assert steps_made(plan.folder) == count_steps(plan)


def test_a_pinned_stage_lends_its_tokenizer(finished_run, tmp_path):
    words = ["quickstart.yaml", *ODD, f"stages.target.path={finished_run.target}"]
    plan = plan_run(config.load([*words, "data.max_tokens=20", f"run.folder={tmp_path}"]))
    assert fit.main([*words, "data.max_tokens=20", f"run.folder={tmp_path}"]) == 0
    assert steps_made(plan.folder) == count_steps(plan)


def test_a_stage_alone_counts_its_own_steps():
    plan = plan_stage(config.load(["quickstart.yaml", *ODD]), "target")
    assert count_steps(plan) == 4 * 31


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(tmp_path):
    words = [*ODD, "trainer.devices=2", "data.max_tokens_per_batch=64", f"run.folder={tmp_path}"]
    plan = plan_run(config.load(["quickstart.yaml", *words]))
    assert count_steps(plan) == 2 * 3
    assert fit.main(words) == 0
    assert steps_made(plan.folder) == 2 * 3


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_summary_table_and_card_of_a_run_say_planned_and_made_steps(finished_run):
    steps = count_steps(plan_run(config.load(["quickstart.yaml", *SMALL])))  # 2 epochs of 2 batches
    assert steps == 4
    assert read_json(finished_run.folder / "summary.json")["steps"] == {"planned": 4, "made": 4}
    assert read_json(finished_run.folder / "env.json")["steps_planned"] == 4
    assert "optimizer steps: 4 made, 4 planned" in finished_run.output
    card = (finished_run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "Optimizer steps: 4 made, 4 planned." in card
    stage = read_json(finished_run.target / "summary.json")["steps"]
    assert stage["made"] == stage["planned"] == 31 * 4  # 124 samples in batches of 4
    table = sweep.full_table(sweep.collect_results({"small": [finished_run.folder]}))
    assert [line[table[0].index("steps")] for line in table[1:3]] == ["4", "4"]


def test_a_run_that_ends_early_says_how_many_steps_it_made_and_was_to_make(tmp_path, capsys):
    words = [
        *SMALL,
        "eval.stop_on=[collapse,over_forgetting,under_forgetting]",
        "eval.forget_quality=false",
    ]
    words += ["trainer.max_epochs=30", "optimizer.lr=0.5", "trainer.log_every_n_steps=3"]
    assert fit.main([*words, f"run.folder={tmp_path}"]) == 0
    steps = read_json(tmp_path / "quickstart" / "summary.json")["steps"]
    assert steps["planned"] == 60
    assert steps["made"] < 60
    line = f"optimizer steps: {steps['made']} made, 60 planned"
    assert line in capsys.readouterr().out
    table = sweep.full_table(sweep.collect_results({"small": [tmp_path / "quickstart"]}))
    assert f"{steps['made']} of 60" in table[1]
    assert report.main([str(tmp_path / "quickstart")]) == 0
    assert line in capsys.readouterr().out


def test_steps_without_a_row_of_their_own_are_counted(tmp_path):
    words = [*ODD, "trainer.log_every_n_steps=4", "trainer.max_epochs=2", "run.export=false"]
    assert fit.main([*words, f"run.folder={tmp_path}"]) == 0
    steps = read_json(tmp_path / "quickstart" / "summary.json")["steps"]
    assert steps == {"planned": 6, "made": 6}
