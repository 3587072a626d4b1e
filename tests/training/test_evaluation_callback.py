"""What a run makes of its evaluations: failures told, further benchmarks, the best epoch kept."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import types

import pytest

from tests.support import killed_processes
from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config import load as config
from tif.config.schema import Model
from tif.data.samples import Benchmark, Sample, Span
from tif.models import export
from tif.models import load as models
from tif.reports.columns import list_main_columns
from tif.training.callbacks.evaluation import Diagnosis
from tif.training.callbacks.exports import KeepBest
from tif.training.callbacks.loggers import MetricsLogger
from tif.training.plan import Plan

SAMPLES = (
    Sample("a", "?", "one two three four", unwanted=(Span(0, 7),)),
    Sample("b", "?", "five six", unwanted=()),
)


class Log(MetricsLogger):
    """A log that has these rows."""

    def __init__(self, rows):
        super().__init__(pathlib.Path("nowhere"))
        self._rows = rows

    def evaluations(self):
        return self._rows


def trainer():
    """Return as much of lightning.Trainer as an evaluation's callbacks read."""
    return types.SimpleNamespace(should_stop=False, is_global_zero=True)


def diagnose(rows, values, stop_on=(), kind="gold", forget=SAMPLES, gold=None, epoch=2):
    """Return the failures that an evaluation's row gets, and whether the training ends."""
    training, values = trainer(), dict(values)
    words = [f"identifier.kind={kind}", f"eval.stop_on=[{','.join(stop_on)}]"]
    plan = Plan(config.load(["quickstart.yaml", *SMALL, *words]), Benchmark("", forget, (), {}))
    callback = Diagnosis(plan, Log(rows), gold)
    callback.on_evaluation(training, None, epoch, values)
    failures = {k: v for k, v in values.items() if k.startswith("failure/")}
    return failures, training.should_stop


START = [{"epoch": 0, "utility/model": 0.6, "forget/quality": 1e-8, "retain/loss": 1.0}]
LOST = {"utility/model": 0.1, "forget/quality": 0.5, "retain/loss": 1.0}


def test_a_failure_goes_into_the_row_and_stops_only_where_it_is_asked_to(capsys):
    collapse = {"failure/collapse": 0.1}
    assert diagnose(START, LOST) == (collapse, False)
    assert "collapse: model utility is 0.1, was 0.6 before" in capsys.readouterr().out
    assert diagnose(START, LOST, ["over_forgetting"]) == (collapse, False)
    assert diagnose(START, LOST, ["collapse"]) == (collapse, True)
    assert "the training ends here (eval.stop_on)" in capsys.readouterr().out


def test_a_run_that_a_failure_had_ended_ends_again_when_it_is_resumed():
    rows = [*START, {"epoch": 1, "failure/collapse": 0.1}]
    for stop_on, ends in ((["collapse"], True), (["over_forgetting"], False), ([], False)):
        training = trainer()
        words = ["quickstart.yaml", f"eval.stop_on=[{','.join(stop_on)}]"]
        plan = Plan(config.load(words), None)
        Diagnosis(plan, Log(rows), None).on_train_start(training, None)
        assert training.should_stop is ends


def test_the_words_are_looked_at_once_with_the_first_evaluation():
    none_unwanted = [dataclasses.replace(s, unwanted=()) for s in SAMPLES]
    failure = {"failure/identifier": 0.0}
    assert diagnose([], LOST, forget=none_unwanted, epoch=0) == (failure, False)
    better = START[0] | {"forget/quality": 0.5}
    assert diagnose(START, better, forget=none_unwanted) == ({}, False)
    # 2 of 6 words; F1 against gold with one of them and another: 2 * 1 / (2 + 2)
    gold = (dataclasses.replace(SAMPLES[0], unwanted=(Span(4, 13),)), SAMPLES[1])
    assert diagnose([], LOST, forget=SAMPLES, gold=gold, epoch=0) == ({}, False)
    wrong = (dataclasses.replace(SAMPLES[0], unwanted=(Span(8, 18),)), SAMPLES[1])
    assert diagnose([], LOST, forget=SAMPLES, gold=wrong, epoch=0)[0] == failure


@pytest.mark.parametrize("kind", ["all", "none", "random"])
def test_a_control_is_no_failed_identifier(kind):
    none_unwanted = [dataclasses.replace(s, unwanted=()) for s in SAMPLES]
    assert diagnose([], LOST, kind=kind, forget=none_unwanted, epoch=0) == ({}, False)


@pytest.fixture
def is_kept(monkeypatch, tmp_path):
    """(rows so far, epoch, score) -> whether the epoch's model is written; five epochs."""
    written = []
    monkeypatch.setattr(
        export, "export_model", lambda policy, tokenizer, folder, *_: written.append(folder.name)
    )
    module = types.SimpleNamespace(unlearned=contextlib.nullcontext)

    def run(rows, epoch, score):
        written.clear()
        encoder = types.SimpleNamespace(tokenizer=None)
        plan = Plan(config.load(["quickstart.yaml", "trainer.max_epochs=5"]), None)
        best = KeepBest(plan, Log(rows), tmp_path, encoder)
        values = {} if score is None else {"choice/eval/score": score}
        best.on_evaluation(trainer(), module, epoch, values)
        return written == ["model_best"]

    return run


def scores(*values):
    return [{"epoch": epoch, "choice/eval/score": value} for epoch, value in enumerate(values)]


def test_an_epoch_is_kept_when_it_is_better_than_all_before_it(is_kept):
    assert is_kept(scores(0.9), 1, 0.2)  # the start is no candidate
    assert is_kept(scores(0.9, 0.2), 2, 0.3)
    assert not is_kept(scores(0.9, 0.2, 0.3), 3, 0.3)
    assert not is_kept(scores(0.9, 0.2, 0.3), 3, None)
    assert not is_kept(scores(0.9), 0, 0.9)


def test_what_a_resumed_run_will_do_again_does_not_count(is_kept):
    assert is_kept(
        scores(0.9, 0.2, 0.1, 0.8), 2, 0.3
    )  # rows of epochs 2 and 3 from before the run was killed


def test_the_last_epoch_is_the_exported_model_alone(is_kept, tmp_path):
    (tmp_path / "model_best").mkdir()
    assert not is_kept(scores(0.9, 0.2), 5, 0.1)
    assert (tmp_path / "model_best").exists()
    assert not is_kept(scores(0.9, 0.2), 5, 0.5)
    assert not (tmp_path / "model_best").exists()


@pytest.mark.guard
@pytest.mark.slow
def test_a_run_keeps_its_best_epoch_evaluates_other_benchmarks_and_ends_where_it_is_told(
    tmp_path_factory, tmp_path
):
    from transformers import AutoModelForCausalLM

    texts = tmp_path / "own.jsonl"
    texts.write_text('{"question": "Who?", "answer": "A judge from Oslo."}\n')
    run = finished(tmp_path_factory)
    words = [
        "run.name=told",
        "trainer.max_epochs=6",
        "optimizer.lr=5e-2",
        "optimizer.warmup_epochs=0",
        "eval.kl=true",
    ]
    words += ["eval.best=forget/quality", "eval.stop_on=[over_forgetting]", "eval.benchmarks=text"]
    words += [f"eval.text.path={texts}"]
    assert fit.main([*SMALL, f"run.folder={run.runs}", *words]) == 0
    folder = run.runs / "told"
    evaluations = [row for row in rows(folder) if "train/loss" not in row]
    assert 1 < len(evaluations) < 7
    assert evaluations[0]["retain/kl"] == 0.0
    assert [
        row["failure/over_forgetting"] for row in evaluations if "failure/over_forgetting" in row
    ] == [evaluations[-1]["retain/kl"]]
    assert all(any(key.startswith("text/") for key in row) for row in evaluations)
    assert (
        sorted(p.name for p in (folder / "eval" / "0" / "text").iterdir())[0] == "aggregates.json"
    )
    summary = json.loads((folder / "summary.json").read_text())
    best = max(evaluations[1:], key=lambda row: row["choice/forget/quality"])
    assert summary["best"]["epoch"] == best["epoch"]
    assert summary["best_groups"]["forget"] == {"author": 1}
    assert (folder / "model_best").exists() == (best is not evaluations[-1])
    assert list_main_columns()[0] in summary["end"]
    AutoModelForCausalLM.from_pretrained(
        folder / ("model_best" if best is not evaluations[-1] else "model")
    )


@pytest.mark.slow
def test_two_processes_decide_as_one_does(tmp_path_factory, tmp_path):
    """Which failures show, which epoch is kept, when the training ends; none waits for ever."""
    where, run = killed_processes.context(), finished(tmp_path_factory)
    words = [
        *SMALL,
        "trainer.max_epochs=6",
        "optimizer.lr=2e-2",
        "optimizer.warmup_epochs=0",
        "data.batching=padded",
    ]
    words += [f"stages.{name}.data.batching=auto" for name in ("target", "retain")]
    words += ["eval.kl=true", "eval.best=forget/quality", "eval.stop_on=[over_forgetting]"]
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        shutil.copytree(run.runs / "stages", folder / "stages")
        run_words = [*words, f"run.folder={folder}", "run.name=told"]
        assert killed_processes.fit_together(where, run_words, processes, ended) == [0] * processes
    alone, both = (tmp_path / str(processes) / "told" for processes in (1, 2))
    expected, actual = (
        [row for row in rows(folder) if "train/loss" not in row] for folder in (alone, both)
    )
    assert [sorted(row) for row in actual] == [sorted(row) for row in expected]
    for row, other_row in zip(actual, expected, strict=True):
        assert row == pytest.approx(other_row, rel=1e-3, abs=1e-4)
    assert 2 < len(expected) < 7  # it ended before the last epoch, and after the best one
    assert ["failure/over_forgetting" in row for row in expected] == [False] * (
        len(expected) - 1
    ) + [True]
    best = [
        json.loads((folder / "summary.json").read_text())["best"]["epoch"]
        for folder in (alone, both)
    ]
    assert best[0] == best[1] < expected[-1]["epoch"]
    best_model, last = (
        models.load_policy(Model(path=str(both / name)), None, 0)
        for name in ("model_best", "model")
    )
    other = models.load_policy(Model(path=str(alone / "model_best")), None, 0)
    assert distance(best_model, other) < 1e-4 < 1e-2 < distance(best_model, last)


def distance(left, right):
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def ended(started, seconds=300):
    """Wait for the processes, and end those that hang."""
    for process in started:
        process.join(seconds)
        process.kill()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["eval.stop_on=[colapse]"],
            "eval.stop_on: want some of collapse, under_forgetting, over_forgetting, identifier",
        ),
        (
            ["eval.best=quality"],
            (
                "eval.best: want one of score, retain_distance, forget/quality, utility/model, "
                "none, got"
            ),
        ),
        (
            ["eval.benchmarks=mouse"],
            "eval.benchmarks: want lume, muse-books, muse-news, text, tofu or lm-eval:TASK, got",
        ),
        (["eval.benchmarks=text", "eval.text.path=absent"], "eval.text.path: "),
    ],
)
def test_wrong_keys_are_told_before_weights_load(tmp_path, capsys, words, line):
    assert fit.main([*SMALL, f"run.folder={tmp_path}", *words]) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
