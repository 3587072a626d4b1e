"""open-unlearning's TOFU_EVAL.json; logs of locuslab/tofu's kind are in test_files.py."""

import copy
import json
import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tests.support.evaluation_logs import SHARED, real
from tif.metrics import tofu
from tif.metrics.results import NumbersRequest, compute_results
from tif.records import files as records
from tif.records.types import Evaluation, Record, RecordSet

CONTROLS = {"ra": "real_authors", "wf": "world_facts"}


def _by_index(*values):
    return {"agg_value": 0.5, "value_by_index": {str(i): value for i, value in enumerate(values)}}


def _loss(*losses):
    return _by_index(*({"prob": 0.1, "avg_loss": loss} for loss in losses))


def _set(prefix, paraphrased):
    texts = [
        ("user\n\nWho?assistant\n\n", "Me.", "Me, I guess."),
        ("user\n\nWhy?assistant\n\n", "So.", "No."),
    ]
    keys = ("input", "ground_truth", "generation")
    columns = {
        f"{prefix}_Q_A_Prob": _loss(0.5, 1.5),
        f"{prefix}_Q_A_PERT_Prob": _loss([1.0, 2.0], [3.0, 4.0]),
        f"{prefix}_Q_A_ROUGE": _by_index(
            *({"rougeL_recall": 0.1, **dict(zip(keys, t, strict=True))} for t in texts)
        ),
    }
    return columns | ({f"{prefix}_Q_A_PARA_Prob": _loss(0.75, 1.25)} if paraphrased else {})


LOG = {
    **_set("forget", True), **_set("retain", True), **_set("ra", False), **_set("wf", False),
    "forget_truth_ratio": _by_index({"score": 0.3}, {"score": 0.4}),
    "forget_quality": {"agg_value": None},
    "model_utility": {"agg_value": 0.5},
}  # fmt: skip


def _write(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "TOFU_EVAL.json").write_text(json.dumps(content))
    return folder / "TOFU_EVAL.json"


def test_open_unlearnings_log_becomes_records(tmp_path):
    actual = records.read_evaluation(_write(tmp_path / "evals_forget10", LOG))
    first, second = ("user\n\nWho?assistant\n\n", "Me."), ("user\n\nWhy?assistant\n\n", "So.")

    def rows(name, paraphrased, group):
        answers = [(0.5, None, paraphrased[0], (1.0, 2.0), "Me, I guess."),
                   (1.5, None, paraphrased[1], (3.0, 4.0), "No.")]  # fmt: skip
        return RecordSet(name, (
            Record(f"{name}/0", *first, *answers[0], group=group),
            Record(f"{name}/1", *second, *answers[1], group=group),
        ))  # fmt: skip

    sets = {name: rows(name, (0.75, 1.25), "author/0") for name in ("forget", "retain")}
    sets |= {name: rows(name, (None, None), None) for name in ("real_authors", "world_facts")}
    assert actual == Evaluation("evals_forget10", sets, protocol={"name": "open-unlearning"})


def _raise_losses(content, nats):
    for metric, values in content.items():
        if metric.endswith("_Prob"):
            for row in values["value_by_index"].values():
                losses = np.array(row["avg_loss"]) + nats
                row["avg_loss"] = losses.tolist()


def _expected_values(content):
    """open-unlearning's memorization.py on the losses of its log, with forget's truth ratios."""
    expected = {}
    for prefix, name in (("forget",) * 2, ("retain",) * 2, *CONTROLS.items()):
        losses = {}
        for kind in ("Prob", "PARA_Prob", "PERT_Prob"):
            rows = content.get(f"{prefix}_Q_A_{kind}", content[f"{prefix}_Q_A_Prob"])
            losses[kind] = np.array([row["avg_loss"] for row in rows["value_by_index"].values()])
        p, wrong = np.exp(-losses["Prob"]), np.exp(-losses["PERT_Prob"])
        ratio = np.exp(-losses["PERT_Prob"].mean(1)) / (np.exp(-losses["PARA_Prob"]) + 1e-10)
        near_one, low = np.minimum(ratio, 1 / (ratio + 1e-10)), np.maximum(0, 1 - ratio)
        expected[f"{name}/truth_ratio"] = (near_one if prefix == "forget" else low).mean()
        options = p / (p + wrong.sum(1) + 1e-10)
        expected[f"{name}/probability"] = (options if prefix in CONTROLS else p).mean()
        if prefix == "forget":
            forget_ratios = ratio
    return expected, forget_ratios


@pytest.mark.parametrize("nats", [0, 20, 800])
def test_a_collapsed_model_has_open_unlearnings_numbers_to_the_last_digit(tmp_path, nats):
    content = copy.deepcopy(LOG)
    _raise_losses(content, nats)
    values = tofu.aggregate(records.read_evaluation(_write(tmp_path, content)))
    expected, _ = _expected_values(content)
    assert {name: values[name] for name in expected} == expected
    if nats == 0:  # exp(-1.5) / exp(-0.75), exp(-3.5) / exp(-1.25) by hand
        by_hand = (math.exp(-0.75) + math.exp(-2.25)) / 2
        assert values["forget/truth_ratio"] == pytest.approx(by_hand, rel=1e-8)


@real
@pytest.mark.parametrize("nats", [0, 20, 800])
@pytest.mark.parametrize(("model", "retain"), [("forget01", "retain99"), ("forget10", "retain90")])
def test_published_logs_give_open_unlearnings_numbers_also_collapsed(tmp_path, model, retain, nats):
    logs = SHARED / "data" / "ou_logs"
    log, retain_log = (
        json.loads((logs / f"Llama-3.2-1B-Instruct__{name}.json").read_text())
        for name in (f"full_{model}", retain)
    )
    logged = {
        "forget/truth_ratio": log["forget_truth_ratio"]["agg_value"],
        "forget/quality": log["forget_quality"]["agg_value"],
        "retain/truth_ratio": log["retain_Truth_Ratio"]["agg_value"],
        "real_authors/truth_ratio": log["ra_Truth_Ratio"]["agg_value"],
        "world_facts/truth_ratio": log["wf_Truth_Ratio"]["agg_value"],
    }
    utility = log["model_utility"]["agg_value"]
    _raise_losses(log, nats)
    evaluation = records.read_evaluation(_write(tmp_path / "model", log))
    retain_evaluation = records.read_evaluation(_write(tmp_path / "retain", retain_log))
    values = tofu.aggregate(evaluation, retain_evaluation)
    expected, ratios = _expected_values(log)
    expected["forget/quality"] = ks_2samp(ratios, _expected_values(retain_log)[1]).pvalue
    assert {name: values[name] for name in expected} == expected
    if nats == 0:
        assert {name: values[name] for name in logged} == logged
        # it takes probabilities that were rounded to float32 on a GPU
        assert values["utility/model"] == pytest.approx(utility, rel=1e-8)
    else:
        assert values["forget/quality"] < 1e-7


SUMMARY = {  # entries of TOFU_SUMMARY.json, by our stable names
    "forget/exact_memorization": "exact_memorization",
    "forget/extraction_strength": "extraction_strength",
    "forget/probability": "forget_Q_A_Prob",
    "forget/rougeL": "forget_Q_A_ROUGE",
    "utility/model": "model_utility",
    "membership/loss": "mia_loss",
    "membership/zlib": "mia_zlib",
    "membership/min_k": "mia_min_k",
    "membership/min_k_plus_plus": "mia_min_k_plus_plus",
    "membership/reference": "mia_reference",
    "membership/gradient_norm": "mia_gradnorm",
}


def _ou_log(name):
    return SHARED / "data" / "ou_logs" / f"Llama-3.2-1B-Instruct__{name}.json"


def _results(name, retain=None):
    """Our numbers of a published log by their stable names, and what evaluate prints of it."""
    retain_evaluation = records.read_evaluation(_ou_log(retain)) if retain else None
    evaluation = records.read_evaluation(_ou_log(name))
    results = compute_results(
        NumbersRequest(evaluation, retain_evaluation, "log", "retain", draws=100)
    )
    values = {
        "utility/model": results["model_utility"],
        "forget/quality": results["forget_quality"],
    }
    for section, metrics in {**results["tasks"], "membership": results["membership"]}.items():
        values |= {f"{section}/{metric}": value for metric, value in metrics.items()}
    return values, results


@real
@pytest.mark.parametrize(
    ("name", "retain"),
    [
        ("full_forget01", "retain99"),
        ("full_forget10", "retain90"),
        ("retain99", None),
        ("retain90", None),
    ],
)
def test_every_entry_of_a_published_summary_comes_out(name, retain):
    summary = json.loads(_ou_log(name).with_suffix(".summary.json").read_text())
    values, results = _results(name, retain)
    compared = {key for key in summary if key not in ("forget_quality", "privleak")}
    assert compared <= set(SUMMARY.values())
    for ours, theirs in SUMMARY.items():
        if theirs in summary:
            assert values[ours] == pytest.approx(summary[theirs], abs=1e-7), theirs  # their float32
    assert values["forget/quality"] == summary.get("forget_quality")  # to the last digit
    assert results["logged"] == {"privleak": summary["privleak"]}
    if retain:
        assert values["membership/privleak"] == pytest.approx(summary["privleak"], abs=1e-7)
        low, high = results["intervals"]["membership"]["privleak"]
        assert low <= values["membership/privleak"] <= high
    else:  # open-unlearning compares with 0.5 then; here nothing is compared with nothing
        assert "membership/privleak" not in values


@real
def test_each_answers_extraction_strength_and_exact_memorization_are_read():
    content = json.loads(_ou_log("full_forget01").read_text())
    forget = records.read_evaluation(_ou_log("full_forget01")).sets["forget"].records
    for metric in ("extraction_strength", "exact_memorization"):
        expected = [row["score"] for row in content[metric]["value_by_index"].values()]
        assert [record.logged[metric] for record in forget] == expected
        assert len(expected) == 40


def _scores(*values):
    return _by_index(*({"score": value} for value in values))


FULL_LOG = LOG | {
    "extraction_strength": _scores(0.25, 1.0),
    "exact_memorization": _scores(0.5, 1.0),
    "mia_min_k": {
        "forget": _scores(1.0, 4.0),
        "holdout": _scores(2.0, 3.0),
        "auc": 0.5,
        "agg_value": 0.5,
    },
    "privleak": {"agg_value": -25.0},
}


def test_what_only_a_log_has_survives_our_own_format(tmp_path):
    evaluation = records.read_evaluation(_write(tmp_path / "a", FULL_LOG))
    assert evaluation.attack_scores == {"min_k": ((1.0, 4.0), (2.0, 3.0))}
    assert evaluation.logged == {"privleak": -25.0}
    records.write_evaluation(tmp_path / "b", evaluation, {})
    assert records.read_evaluation(tmp_path / "b") == evaluation


def test_privleak_of_two_logs_compares_their_min_k(tmp_path):
    retain_log = FULL_LOG | {
        "mia_min_k": {"forget": _scores(1.0, 4.0), "holdout": _scores(2.0, 0.5)}
    }
    evaluation = records.read_evaluation(_write(tmp_path / "a", FULL_LOG))
    retain = records.read_evaluation(_write(tmp_path / "b", retain_log))
    # pairs with the forget text lower: 2 of 4, and 1 of 4;
    # so 100 * ((1 - 2/4) - (1 - 1/4)) / (1 - 1/4)
    results = compute_results(NumbersRequest(evaluation, retain, "log", "retain", draws=100))
    assert results["membership"] == {"min_k": 0.5, "privleak": pytest.approx(-100 / 3)}
    fewer = FULL_LOG | {"mia_min_k": {"forget": _scores(1.0), "holdout": _scores(2.0)}}
    retain = records.read_evaluation(_write(tmp_path / "c", fewer))
    results = compute_results(NumbersRequest(evaluation, retain, "log", "retain", draws=100))
    assert results["membership"] == {"min_k": 0.5}  # other texts


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["extraction_strength"]["value_by_index"]["1"].update(score=1.5),
         "extraction_strength/value_by_index/1/score: want at most 1, got 1.5"),
        (lambda c: c["exact_memorization"]["value_by_index"].pop("0"),
         "exact_memorization has 1 rows, forget_Q_A_Prob 2: only one of them has row 0"),
        (lambda c: c["mia_min_k"].pop("holdout"),
         "mia_min_k/holdout/value_by_index: want an object, got None"),
        (lambda c: c["mia_min_k"].update(holdout=_by_index()),
         "mia_min_k: want forget and holdout texts, got none of one of them"),
        (lambda c: c["mia_min_k"]["forget"]["value_by_index"]["0"].update(score="x"),
         "mia_min_k/forget/value_by_index/0/score: want a number, got 'x'"),
        (lambda c: c.update(privleak=3), "privleak: want an object, got 3"),
    ],
)  # fmt: skip
def test_damaged_memorization_and_attacks_are_refused_in_one_line(tmp_path, edit, message):
    content = copy.deepcopy(FULL_LOG)
    edit(content)
    path = _write(tmp_path, content)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_log_of_some_sets_has_those_alone(tmp_path):
    assert list(records.read_evaluation(_write(tmp_path, _set("forget", True))).sets) == ["forget"]


def test_what_open_unlearning_wrote_survives_our_own_format(tmp_path):
    evaluation = records.read_evaluation(_write(tmp_path / "a", LOG))
    records.write_evaluation(tmp_path / "b", evaluation, {})
    assert records.read_evaluation(tmp_path / "b") == evaluation


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("forget_Q_A_PARA_Prob"), "forget_Q_A_PARA_Prob is missing"),
        (lambda c: c.pop("ra_Q_A_ROUGE"), "ra_Q_A_ROUGE is missing"),
        (
            lambda c: [c.pop(f"retain_Q_A_{kind}") for kind in ("Prob", "ROUGE", "PERT_Prob")],
            "retain_Q_A_Prob is missing",
        ),
        (
            lambda c: c.update({"eval_log.json": {}}),
            "has tasks of locuslab/tofu and of open-unlearning",
        ),
        (
            lambda c: c.update(wf_Q_A_Prob=0.4),
            "wf_Q_A_Prob/value_by_index: want an object, got 0.4",
        ),
        (
            lambda c: c["forget_Q_A_Prob"]["value_by_index"].pop("1"),
            "forget_Q_A_ROUGE has 2 rows, forget_Q_A_Prob 1: only one of them has row 1",
        ),
        (
            lambda c: c["forget_Q_A_Prob"]["value_by_index"]["1"].update(avg_loss=None),
            "forget_Q_A_Prob/value_by_index/1/avg_loss: want a number, got None",
        ),
        (
            lambda c: c["retain_Q_A_Prob"]["value_by_index"]["0"].update(avg_loss=math.nan),
            "retain_Q_A_Prob/value_by_index/0/avg_loss is nan, want a finite number",
        ),
        (
            lambda c: c["forget_Q_A_ROUGE"]["value_by_index"]["0"].pop("input"),
            "forget_Q_A_ROUGE/value_by_index/0/input is missing",
        ),
        (
            lambda c: c["forget_Q_A_PERT_Prob"]["value_by_index"].update({"0": 3}),
            "forget_Q_A_PERT_Prob/value_by_index/0: want an object, got 3",
        ),
        (
            lambda c: c["forget_Q_A_Prob"]["value_by_index"]["1"].update(avg_loss=-0.5),
            "forget_Q_A_Prob/value_by_index/1/avg_loss: want at least 0, got -0.5",
        ),
        (
            lambda c: c["wf_Q_A_PERT_Prob"]["value_by_index"]["0"].update(avg_loss=[1.0, -2.0]),
            "wf_Q_A_PERT_Prob/value_by_index/0/avg_loss/1: want at least 0, got -2.0",
        ),
        (
            lambda c: c["ra_Q_A_PERT_Prob"]["value_by_index"]["0"].update(avg_loss=[1.0]),
            "ra_Q_A_PERT_Prob/value_by_index/1 has 2 losses, want 1 as in the other rows",
        ),
        (
            lambda c: c["ra_Q_A_PERT_Prob"]["value_by_index"]["0"].update(avg_loss=[]),
            "ra_Q_A_PERT_Prob/value_by_index/0/avg_loss: want one or more, got []",
        ),
        (
            lambda c: c["forget_Q_A_Prob"]["value_by_index"]["1"].update(avg_loss=10**400),
            "forget_Q_A_Prob/value_by_index/1/avg_loss: want a finite number, "
            "got 1000000000000000000000000000000000000000",
        ),
        (
            lambda c: c["forget_Q_A_ROUGE"]["value_by_index"]["0"].update(ground_truth=" "),
            "forget_Q_A_ROUGE/value_by_index/0/ground_truth: want a text that is not blank, "
            "got ' '",
        ),
    ],
)
def test_a_damaged_log_of_open_unlearning_is_refused_in_one_line(tmp_path, edit, message):
    content = copy.deepcopy(LOG)
    edit(content)
    path = _write(tmp_path, content)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(path)
    assert str(error.value) == f"{path}: {message}"
