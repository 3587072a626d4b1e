"""Methods that make more than a loss: AltPO's answers, Who's Harry Potter's other model."""

import json

import pytest

from tests.support.small_run import SMALL, finished, rows
from tif import fit

SMALL_WORDS = [word for word in SMALL if not word.startswith("loss.")]


def run(tmp_path_factory, name, *words):
    runs = finished(tmp_path_factory).runs
    run_words = [
        f"loss/{name}.yaml",
        *SMALL_WORDS,
        f"run.folder={runs}",
        f"run.name={name}",
        "run.export=false",
        *words,
    ]
    assert fit.main(["quickstart.yaml", *run_words]) == 0
    return runs


@pytest.mark.guard
@pytest.mark.slow
def test_altpo_makes_its_answers_once_and_prefers_them(tmp_path_factory):
    words = ["loss.alternates.count=2", "loss.alternates.max_new_tokens=8", "optimizer.lr=1e-2"]
    runs = run(tmp_path_factory, "altpo", *words)
    (file,) = (runs / "alternates").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines() if line]
    answers = json.loads((runs / "altpo" / "eval" / "2" / "forget.json").read_text())["records"]
    assert sorted((line["id"], line["number"]) for line in lines) == sorted(
        (name, n) for name in answers for n in (0, 1)
    )
    losses = [row["train/dpo"] for row in rows(runs / "altpo") if "train/loss" in row]
    assert losses[0] == pytest.approx(
        20 * 0.693147, rel=1e-4
    )  # 2 / beta ln 2: nothing has moved yet
    assert losses[-1] < losses[0]
    before = file.read_bytes()
    run(tmp_path_factory, "altpo", *words, "run.name=altpo_again")
    assert file.read_bytes() == before
    second_losses = [row["train/dpo"] for row in rows(runs / "altpo_again") if "train/loss" in row]
    assert second_losses == losses


@pytest.mark.guard
@pytest.mark.slow
def test_whp_makes_the_reinforced_model_once_and_learns_what_it_lowers(tmp_path_factory):
    words = ["loss.whp_epochs=2", "optimizer.lr=1e-2", "loss.whp=5"]
    runs = run(tmp_path_factory, "whp", *words)
    (stage,) = (p for p in (runs / "stages").glob("reinforced-*") if p.is_dir())
    finetuned = [row["train/ce"] for row in rows(stage)]
    assert finetuned[-1] < finetuned[0]
    losses = [row["train/whp"] for row in rows(runs / "whp") if "train/loss" in row]
    assert losses[-1] < losses[0]
    written_at = (stage / "model" / "model.safetensors").stat().st_mtime_ns
    run(tmp_path_factory, "whp", *words, "run.name=whp_other", "loss.on=uw")
    assert [p for p in (runs / "stages").glob("reinforced-*") if p.is_dir()] == [stage]
    assert (stage / "model" / "model.safetensors").stat().st_mtime_ns == written_at


@pytest.mark.guard
@pytest.mark.slow
def test_whp_at_inference_forgets_while_the_policy_learns(tmp_path_factory):
    runs = run(tmp_path_factory, "whp_inference", "optimizer.lr=1e-2", "loss.whp=5")
    run_rows = rows(runs / "whp_inference")
    trained = [row["train/ce"] for row in run_rows if "train/loss" in row]
    assert trained[-1] < trained[0]
    before, *_, after = (row["forget/probability"] for row in run_rows if "train/loss" not in row)
    assert after < before
