"""The number of optimizer steps that a plan promises is the number that real runs make."""

import pytest

from tests.support.small_run import SMALL
from tif import fit
from tif.config import load as config
from tif.records import metrics_log
from tif.training.plan import plan_run, plan_stage
from tif.training.steps import count_steps

# 7 authors with 3 questions: 21 samples, of which 9 are forgotten; the target model learns 100 facts
# of the background too.
ODD = [
    *SMALL, "eval.enabled=false", "run.export=false", "run.checkpoint_every_n_steps=null",
    "data.fictitious.authors=7", "data.fictitious.questions_per_author=3",
    "data.fictitious.forget_share=0.43",
]  # fmt: skip


def steps_made(folder):
    rows = metrics_log.read_training_rows(folder / metrics_log.FILE_NAME)
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
