"""What a run leaves: rows, records, summary, model; and how it ends where its loss breaks."""

import json
import math

import pytest

import tif.evaluate as evaluate
from tests.support.run_folders import stage_folders
from tests.support.small_run import SMALL, rows
from tif import fit
from tif.config import load as config
from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.records import files as records
from tif.reports.columns import format_number
from tif.training import run as training
from tif.utils import environment

SETS = ("forget", "retain", "real_authors", "world_facts")

OF_WORDS = ("words/", "paraphrased/")  # of the unwanted and the general words


def test_metrics_have_stable_names_and_count_epochs_from_the_model_before_training(finished_run):
    logged = rows(finished_run.folder)
    evaluated = [r for r in logged if "forget/probability" in r]
    training_rows = [r for r in logged if "train/loss" in r]
    assert [(r["epoch"], r["step"]) for r in evaluated] == [(0, 0), (1, 2), (2, 4)]
    assert [(r["epoch"], r["step"]) for r in training_rows] == [(1, 0), (1, 1), (2, 2), (2, 3)]
    assert len(logged) == 7
    metrics = (
        "probability",
        "rouge1",
        "rougeL",
        "truth_ratio",
        "exact_memorization",
        "extraction_strength",
    )
    per_set = {f"{s}/{m}" for s in SETS for m in metrics}
    scores = ("probability", "exact_memorization", "extraction_strength")
    per_set |= {f"forget_paraphrased/{score}" for score in scores}  # nothing is generated there
    words = {"words/unwanted_written"}
    for kind in ("unwanted", "general"):
        for way in OF_WORDS:
            words |= {f"{way}{kind}", f"{way}{kind}_extracted"}
    unread = ("as_unread", "facts_above", "readable", "uw_ratio", "uw_ratio_otherwise")
    # The model before training is asked if it knows the forget set.
    known = {"known/retain_gain", "known/wrong_gain"}
    for row in evaluated:
        assert set(row) == per_set | words | (known if row["epoch"] == 0 else set()) | {
            "epoch",
            "step",
            "utility/model",
            "utility/eight",
            "summary/memorization",
            "summary/utility",
            *(f"forget/{name}" for name in unread),
            "forget/quality",
            "forget/retain_distance",
            "retain/loss",
            "eval/score",
            "choice/eval/score",
        }
    changes = {f"train/uw_{change}_change" for change in ("logit", "logprob", "mean_logit")}
    for row in training_rows:
        assert (
            set(row)
            == {"epoch", "step", "train/loss", "train/lpl", "train/pl", "train/retain"} | changes
        )
    assert all(math.isfinite(value) for row in logged for value in row.values())


def test_the_first_step_is_taken_at_the_reference_itself(finished_run):
    # d = 0, so LPL is 2 ln 2 / beta for each sample that has unwanted words.
    first = next(r for r in rows(finished_run.folder) if "train/loss" in r)
    assert first["train/lpl"] == pytest.approx(2 * math.log(2) / 0.3, rel=1e-5)
    assert first["train/uw_logit_change"] == pytest.approx(0, abs=1e-5)
    parts = first["train/lpl"] + 0.01 * first["train/pl"] + 0.5 * first["train/retain"]
    assert first["train/loss"] == pytest.approx(parts)


def test_the_records_of_an_epoch_are_those_its_metrics_were_made_of(finished_run):
    for row in (r for r in rows(finished_run.folder) if "forget/probability" in r):
        logged = records.read_evaluation(finished_run.folder / "eval" / str(row["epoch"]))
        assert logged.epoch == row["epoch"]
        assert [len(logged.sets[name].records) for name in SETS] == [8, 6, 3, 3]
        expected = sum(math.exp(-r.loss) for r in logged.sets["forget"].records) / 8
        assert row["forget/probability"] == pytest.approx(expected)
        aggregates = json.loads(
            (finished_run.folder / "eval" / str(row["epoch"]) / "aggregates.json").read_text()
        )
        assert aggregates["metrics"]["forget/quality"] == row["forget/quality"]


def test_the_chosen_epoch_is_reported_on_the_author_that_did_not_choose_it(finished_run):
    summary = json.loads((finished_run.folder / "summary.json").read_text())
    evaluated = [row for row in rows(finished_run.folder) if "choice/eval/score" in row]
    best = max(evaluated[1:], key=lambda row: row["choice/eval/score"])
    assert summary["best"]["epoch"] == best["epoch"]
    # Two authors are forgotten: one chose, the other reports.
    assert summary["best_groups"]["forget"] == {"author": 1}
    evaluation = records.read_evaluation(finished_run.folder / "eval" / str(best["epoch"]))
    probabilities = {}
    for record in evaluation.sets["forget"].records:
        probabilities.setdefault(record.group, []).append(math.exp(-record.loss))
    means = [sum(values) / len(values) for values in probabilities.values()]
    assert len(means) == 2
    reported = summary["best"]["forget/probability"]
    assert any(reported == pytest.approx(mean) for mean in means)
    assert reported != pytest.approx(best["forget/probability"], rel=1e-6)


def test_the_summary_has_the_last_evaluations_intervals_as_the_evaluate_command_finds_them(
    finished_run, capsys
):
    intervals = json.loads((finished_run.folder / "summary.json").read_text())["intervals"]
    assert (
        evaluate.main(
            [
                f"records={finished_run.folder / 'eval' / '2'}",
                f"retain_records={finished_run.retain}",
                "--json",
            ]
        )
        == 0
    )
    expected = json.loads(capsys.readouterr().out)["intervals"]
    assert intervals["utility/model"] == expected["model_utility"]
    assert intervals["forget/quality"] == expected["forget_quality"]
    assert intervals["retain/probability"] == expected["tasks"]["retain"]["probability"]
    low, high = intervals["forget/probability"]
    lines = [line.split() for line in finished_run.output.splitlines()]
    (line,) = [line for line in lines if line[:3] == ["forget", "prob.", "↓"]]
    assert f"{low:.3f} – {high:.3f}" in " ".join(line)


def test_the_summary_holds_first_and_last_evaluation_and_the_retain_models(finished_run):
    summary = json.loads((finished_run.folder / "summary.json").read_text())
    logged = rows(finished_run.folder)
    assert summary["start"] == logged[0]
    assert summary["end"] == logged[-1]
    assert summary["training"] == logged[-2]
    retain = json.loads((finished_run.folder / "eval/retain_model/aggregates.json").read_text())
    retain_model = summary["retain_model"]
    words = {key: value for key, value in retain_model.items() if key.startswith(OF_WORDS)}
    assert summary["retain_model"] == retain["metrics"] | words
    assert words.keys() == {key for key in logged[0] if key.startswith(OF_WORDS)}
    assert summary["seconds"].keys() >= {"stage target", "stage retain", "training", "evaluation"}
    assert all(seconds >= 0 for seconds in summary["seconds"].values())
    assert summary["retain_model"]["forget/probability"] != logged[0]["forget/probability"]


def test_all_files_of_a_run_have_the_permissions_that_the_user_gives_new_files(
    finished_run, tmp_path
):
    (tmp_path / "new").touch()
    mode = (tmp_path / "new").stat().st_mode
    written = [path for path in finished_run.runs.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in written)
    assert [path for path in written if path.stat().st_mode != mode] == []


def test_the_environment_is_recorded(finished_run):
    env = json.loads((finished_run.folder / "env.json").read_text())
    assert {"torch", "lightning", "transformers"} <= {name.lower() for name in env["packages"]}
    assert env["commit"] == environment.read_commit()
    assert env["host"]["cpu_threads"] >= 1


def test_a_run_says_which_versions_were_not_tested_and_goes_on(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training, "unlearn", lambda plan: tmp_path)
    cfg = config.load(["quickstart.yaml"])
    departures = {"transformers": {"installed": "5.26.0", "tested": "5.25.0"}}
    monkeypatch.setattr(training, "read_departures", lambda: departures)
    assert training.run(cfg) == tmp_path
    *before, line = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "versions that were not tested: transformers 5.26.0 (tested: 5.25.0); pip install -c "
    )
    monkeypatch.setattr(training, "read_departures", lambda: {})
    assert training.run(cfg) == tmp_path
    assert capsys.readouterr().out.splitlines() == before


def test_the_exported_model_loads_with_transformers_alone_and_gives_the_recorded_answers(
    finished_run,
):
    import torch
    import transformers

    folder = finished_run.folder / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for record in (
        records.read_evaluation(finished_run.folder / "eval" / "2").sets["forget"].records
    ):
        ids = tokenizer(f"Question: {record.prompt}\nAnswer: {record.answer}", return_tensors="pt")[
            "input_ids"
        ]
        ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], 1)
        answer = len(tokenizer(f"Question: {record.prompt}\nAnswer:")["input_ids"])
        labels = ids.clone()
        labels[:, :answer] = -100
        with torch.no_grad():
            assert model(ids, labels=labels).loss.item() == pytest.approx(record.loss, abs=1e-4)


def test_the_model_card_tells_where_the_model_comes_from_and_what_it_scored(finished_run):
    card = (finished_run.folder / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    last = rows(finished_run.folder)[-1]
    head = next(line for line in card.splitlines() if line.startswith("| epoch |")).split(" | ")
    line = next(line for line in card.splitlines() if line.startswith("| 2 |")).split(" | ")
    for metric in ("forget/quality", "utility/model"):
        assert line[head.index(metric)] == format_number(last[metric])
    assert card.count("\n| ") == 5  # head, rule, epochs 0, 1, 2


def exploding(finished_run):
    target = finished_run.runs / "stages" / stage_folders()["target"] / "model"
    words = ["optimizer.lr=1e38", "optimizer.warmup_epochs=0", "trainer.gradient_clip_val=null"]
    return [
        "quickstart.yaml",
        *SMALL,
        f"run.folder={finished_run.runs}",
        f"model.path={target}",
        "eval.forget_quality=false",
        *words,
    ]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(finished_run, capsys):
    assert fit.main([*exploding(finished_run), "run.name=infinite"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("loss is nan at step 1 (")
    ids = {s.id for s in generate_fictitious(Fictitious(6, 4, 0.34, 0)).forget}
    named = line.split(" on samples ")[1].split(";")[0].split(", ")
    assert len(named) == 4
    assert set(named) <= ids
    assert not (finished_run.runs / "infinite" / "summary.json").exists()
    assert not (finished_run.runs / "infinite" / "model").exists()


def test_a_model_that_broke_in_the_last_step_is_told_from_its_evaluation(finished_run, capsys):
    # One step an epoch: the evaluation meets the broken weights before any loss does.
    assert (
        fit.main(
            [
                *exploding(finished_run),
                "run.name=broken",
                "trainer.max_epochs=1",
                "data.batch_size=8",
            ]
        )
        == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("loss is not finite in the evaluation of epoch 1 on 28 of 28 samples (")


def test_a_run_without_evaluation_and_without_export_writes_neither(finished_run):
    words = [
        *SMALL,
        f"run.folder={finished_run.runs}",
        "run.name=bare",
        "eval.enabled=false",
        "run.export=false",
    ]
    assert fit.main([*words, "run.keep_checkpoints=0"]) == 0
    assert {p.name for p in (finished_run.runs / "bare").iterdir()} == {
        ".lock", "config.yaml", "env.json", "metrics.jsonl", "summary.json", "times.json",
        "report.html",
    }  # fmt: skip
