"""A run folder as an object: numbers, models, answers, tables for notebooks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.small_run import copied_run, rows
from tif.api.run import Answers, Report, Run
from tif.config.errors import ConfigError
from tif.metrics import overall
from tif.records.files import read_evaluation
from tif.records.run_folder import find_stage
from tif.training.run_models import plan_run_chat


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A copy of the finished run and its stages, so that reports and audits may write into it."""
    return Run(copied_run(tmp_path_factory) / "quickstart")


def test_metrics_and_steps_are_the_rows_of_the_file(run):
    expected = rows(run.folder)
    assert run.metrics == [row for row in expected if "forget/probability" in row]
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2]
    assert run.steps == [row for row in expected if "train/loss" in row]


def test_an_evaluation_has_the_rows_numbers_their_intervals_and_the_records(run):
    evaluation = run.evaluation(1)
    row = run.metrics[1]
    for name, value in row.items():
        if "/" in name:
            assert evaluation.metrics[name] == value
    records = read_evaluation(run.folder / "eval" / "1")
    assert evaluation.records == records.sets
    assert (
        evaluation.metrics["forget/probability"] == overall.aggregate(records)["forget/probability"]
    )
    low, high = evaluation.intervals["forget/probability"]
    assert low <= row["forget/probability"] <= high
    assert run.evaluation().metrics["forget/quality"] == run.metrics[-1]["forget/quality"]


def test_an_epoch_that_was_not_evaluated_is_refused_with_those_that_were(run):
    with pytest.raises(
        ConfigError, match=r"^epoch: .* has no evaluation of epoch 7; want one of 0, 1, 2$"
    ):
        run.evaluation(7)


def test_the_model_is_that_of_the_folder_and_ready_to_be_used(run):
    import transformers

    expected = transformers.AutoModelForCausalLM.from_pretrained(run.folder / "model")
    model = run.model()
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert run.model() is not model  # each call loads one, to be changed at will


def test_a_notebook_shows_a_run_as_a_table_with_a_line_for_each_epoch(run):
    page = run._repr_html_()
    assert page.count("<tr>") == 1 + 3 + 1  # head, epochs, retain model
    for text in (
        "before",
        "retain model",
        "forget quality ↑",
        f"{run.metrics[-1]['forget/probability']:.3f}",
    ):
        assert text in page
    assert str(run.folder) in repr(run)


def test_texts_of_models_and_data_are_shown_and_not_obeyed():
    hostile = "<script>alert(1)</script>\x1b[31m \u202eabc"
    page = Answers(hostile, hostile, hostile)._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        Run(tmp_path)


ASK = """
import sys, tif
run = tif.Run(sys.argv[1])
answers = run.ask("Where was she born?", max_new_tokens=4)
print(type(answers.target).__name__, type(answers.unlearned).__name__)
"""


def test_a_moved_run_is_asked_from_any_folder_and_no_library_speaks(run, tmp_path):
    shutil.copytree(run.folder.parent, tmp_path / "moved")
    command = [sys.executable, "-c", ASK, "../moved/quickstart"]
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("str str\n", "")


def test_a_run_without_its_stages_says_as_chat_does_what_is_missing(run, tmp_path):
    alone = shutil.copytree(run.folder, tmp_path / "runs" / "quickstart")
    stage = Path(os.path.normpath(find_stage(alone, "target")))
    reason = "the stage was deleted or left behind, or another version of tif made it"
    line = f"target: no {stage}/model: {reason}"
    with pytest.raises(ConfigError) as caught:
        Run(alone).ask("Where was she born?")
    assert str(caught.value) == f"{line}; want tif fit {alone}/config.yaml stage=target"
    assert f"{line}; want target=MODEL" in plan_run_chat(alone)[1]


def test_a_report_is_written_again_and_shown_in_a_frame_that_may_not_leave_it(run):
    path = run.folder / "report.html"
    run.report()  # names the copy's folder from now on
    before = path.read_text(encoding="utf-8")
    path.unlink()
    report = run.report()
    assert report.path == path
    assert path.read_text(encoding="utf-8") == before
    assert f'<iframe src="{path}"' in report._repr_html_()
    assert 'sandbox="allow-scripts"' in report._repr_html_()
    assert "<b>" not in Report(Path("<b>/x"))._repr_html_()


def test_an_audit_is_the_commands(run, capsys):
    from tif.audit.command import main

    audit = run.audit(prefix={"shots": 1})
    capsys.readouterr()
    assert main([str(run.folder), "attacks=prefix", "prefix.shots=1", "--json"]) == 0
    assert audit.content == json.loads(capsys.readouterr().out)[str(run.folder)]
    page = audit._repr_html_()
    assert page.count("<tr>") == 1 + len(audit.content["attacks"]["prefix"]["rows"])
    assert f"<li>{audit.verdicts['prefix']}</li>" in page
