"""Callbacks one by one, without a training. What they do in a run is in test_fit.py."""

import json
import shutil
import sys
import types

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config.schema import Config, Eval, TrainerKeys
from tif.records import files as records
from tif.reports.columns import list_main_columns
from tif.training.callbacks import progress
from tif.training.callbacks.evaluation import PolicyEvaluation
from tif.training.callbacks.exports import Export
from tif.training.callbacks.loggers import MetricsLogger
from tif.training.callbacks.progress import TrainingBar
from tif.training.plan import Plan
from tif.utils import terminal


def logger(tmp_path, text=None):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    return MetricsLogger(path)


def test_each_call_appends_a_whole_row_with_epoch_and_step_first(tmp_path):
    log = logger(tmp_path)
    log.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 1.0}, step=4)
    log.log_metrics({"epoch": 1.0, "forget/quality": 1e-12}, step=5)
    lines = log.path.read_text().splitlines(True)
    assert lines[0] == '{"epoch": 1, "step": 4, "train/loss": 0.30000000000000004}\n'
    assert json.loads(lines[1]) == {"epoch": 1, "step": 5, "forget/quality": 1e-12}
    assert rows(tmp_path) == [json.loads(line) for line in lines]


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Return a PolicyEvaluation of five epochs whose evaluations are noted instead of made."""
    noted = []
    monkeypatch.setattr(
        PolicyEvaluation, "_evaluate", lambda self, trainer, module, epoch: noted.append(epoch)
    )

    def make(**settings):
        cfg = Config(eval=Eval(**settings), trainer=TrainerKeys(max_epochs=5))
        plan = Plan(cfg, None)
        return PolicyEvaluation(plan, None, tmp_path, logger(tmp_path)), noted

    return make


def at(epoch):
    """Return a trainer with so many epochs behind it."""
    return types.SimpleNamespace(current_epoch=epoch)


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"every_n_epochs": 2}, [0, 2, 4, 5]),
        ({"every_n_epochs": 5}, [0, 5]),
        ({"every_n_epochs": 0}, [0, 5]),
        ({"before_training": False, "every_n_epochs": 3}, [3, 5]),
    ],
)
def test_epoch_0_every_nth_and_the_last_are_evaluated(evaluate, settings, epochs):
    callback, noted = evaluate(**settings)
    callback.on_train_start(at(0), None)
    for epoch in range(5):
        callback.on_train_epoch_end(at(epoch), None)
    assert noted == epochs


def test_a_resumed_run_evaluates_its_checkpoints_epoch_unless_its_row_is_there(evaluate):
    callback, noted = evaluate()
    callback.metrics_log.log_metrics({"epoch": 1.0, "train/loss": 2.0}, step=2)
    callback.on_train_start(at(1), None)
    assert noted == [1]
    callback.metrics_log.log_metrics({"epoch": 1.0, "forget/probability": 0.5}, step=3)
    callback.on_train_start(at(1), None)
    assert noted == [1]


@pytest.mark.slow
def test_evaluation_intervals_hold_in_a_run(tmp_path_factory):
    run = finished(tmp_path_factory)
    words = [
        *SMALL,
        f"run.folder={run.runs}",
        "run.name=every-two",
        "trainer.max_epochs=3",
        "eval.every_n_epochs=2",
    ]
    assert fit.main([*words, "run.export=false"]) == 0
    folder = run.runs / "every-two"
    assert [r["epoch"] for r in rows(folder) if "forget/probability" in r] == [0, 2, 3]
    assert sorted(p.name for p in (folder / "eval").glob("[0-9]*")) == ["0", "2", "3"]


@pytest.mark.slow
def test_log_every_n_steps_thins_the_training_rows_only(tmp_path_factory):
    run = finished(tmp_path_factory)
    words = [
        *SMALL,
        f"run.folder={run.runs}",
        "run.name=thin",
        "trainer.log_every_n_steps=2",
        "run.export=false",
    ]
    assert fit.main([*words, "eval.every_n_epochs=0"]) == 0
    logged = rows(run.runs / "thin")
    expected = [
        (r["epoch"], r["step"])
        for r in rows(run.folder)
        if "train/loss" in r and r["step"] % 2 == 1
    ]
    assert [(r["epoch"], r["step"]) for r in logged if "train/loss" in r] == expected
    assert [r["epoch"] for r in logged if "forget/probability" in r] == [0, 2]


def test_the_bar_is_closed_by_an_error_even_before_it_opened():
    bar = TrainingBar("training")
    bar.on_exception(None, None, KeyboardInterrupt())
    trainer = types.SimpleNamespace(
        num_training_batches=2,
        max_epochs=3,
        current_epoch=0,
        fit_loop=types.SimpleNamespace(total_batch_idx=-1),
    )
    bar.on_train_start(trainer, None)
    assert terminal._display.task_ids
    bar.on_exception(trainer, None, KeyboardInterrupt())
    assert not terminal._display.task_ids


def test_an_epochs_time_is_without_the_evaluation_before_training(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(terminal, "console", Console(file=sys.stdout, width=200))
    trainer = types.SimpleNamespace(
        num_training_batches=5,
        max_epochs=3,
        current_epoch=0,
        fit_loop=types.SimpleNamespace(total_batch_idx=-1),
    )
    module = types.SimpleNamespace(step_values={"train/loss": torch.tensor(1.0)})
    bar = TrainingBar("unlearning")
    bar.on_train_start(trainer, module)
    clock[0] += 600  # the evaluation before training
    for epoch in range(2):
        trainer.current_epoch = epoch
        bar.on_train_batch_start(trainer, module)
        clock[0] += 10
        bar.on_train_epoch_end(trainer, module)
    bar.on_train_end(trainer, module)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unlearning: epoch 1 of 3, loss 1.000 (10 s an epoch, 20 s left)"
    assert lines[1] == "unlearning: epoch 2 of 3, loss 1.000 (10 s an epoch, 10 s left)"


def test_bars_nest_and_leave_nothing_behind():
    with terminal.progress_bar("outer", 2) as outer:
        for _ in terminal.track(range(3), "inner"):
            assert len(terminal._display.task_ids) == 2
        outer.advance(note="epoch 1")
        assert len(terminal._display.task_ids) == 1
    assert not terminal._display.task_ids


def test_export_is_not_left_out_where_no_epoch_was_left_to_train():
    # Lightning calls neither on_train_start nor on_train_end for a run that resumes at its end.
    assert Export.on_train_end is Callback.on_train_end
    assert Export.on_fit_end is not Callback.on_fit_end


def test_the_headline_names_metrics_that_exist(tmp_path_factory):
    evaluated = rows(finished(tmp_path_factory).folder)[0]
    assert {name for name in list_main_columns() if not name.startswith("muse/")} <= set(evaluated)


def test_an_evaluation_runs_in_the_trainers_mixed_precision_with_losses_in_float32(
    tmp_path_factory, tmp_path
):
    run = finished(tmp_path_factory)
    shutil.copytree(run.runs / "stages", tmp_path / "stages")
    words = [
        *SMALL,
        f"run.folder={tmp_path}",
        "run.name=mixed",
        "trainer.precision=bf16-mixed",
        "run.export=false",
    ]
    same_stages = [f"stages.{name}.trainer.precision=32-true" for name in ("target", "retain")]
    assert fit.main([*words, *same_stages, "trainer.max_epochs=1"]) == 0
    # Before training the weights are those of the other run, to the last bit.
    exact, mixed = (
        records.read_evaluation(folder / "eval" / "0").sets
        for folder in (run.folder, tmp_path / "mixed")
    )
    for name in ("forget", "retain"):
        pairs = [
            (a.loss, b.loss) for a, b in zip(exact[name].records, mixed[name].records, strict=True)
        ]
        assert all(a != b for a, b in pairs)
        assert [b for _, b in pairs] == pytest.approx([a for a, _ in pairs], rel=0.02)
        # Nothing that was rounded to bfloat16's 8 bits of mantissa.
        assert all(torch.tensor(b).bfloat16().item() != b for _, b in pairs)
    # So are the retain model's records that its are compared with: the same model, once more.
    stage = next((tmp_path / "stages").glob("retain-*/eval"))
    evaluations = (
        records.read_evaluation(folder).sets["forget"].records for folder in stage.iterdir()
    )
    once, second = ([record.loss for record in logged] for logged in evaluations)
    assert once != second
    assert once == pytest.approx(second, rel=0.02)
