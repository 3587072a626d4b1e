"""open-unlearning's TOFU_EVAL.json; logs of locuslab/tofu's kind are in test_files.py."""

import copy
import json
import math

import pytest

from tif.metrics import tofu
from tif.records import files as records
from tif.records.types import Evaluation, Record, RecordSet


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
    found = {
        f"{prefix}_Q_A_Prob": _loss(0.5, 1.5),
        f"{prefix}_Q_A_PERT_Prob": _loss([1.0, 2.0], [3.0, 4.0]),
        f"{prefix}_Q_A_ROUGE": _by_index(
            *({"rougeL_recall": 0.1, **dict(zip(keys, t, strict=True))} for t in texts)
        ),
    }
    return found | ({f"{prefix}_Q_A_PARA_Prob": _loss(0.75, 1.25)} if paraphrased else {})


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

    def rows(name, *paraphrased):
        return RecordSet(name, (
            Record(f"{name}/0", *first, 0.5, None, paraphrased[0], (1.0, 2.0), "Me, I guess."),
            Record(f"{name}/1", *second, 1.5, None, paraphrased[1], (3.0, 4.0), "No."),
        ))  # fmt: skip

    sets = {name: rows(name, 0.75, 1.25) for name in ("forget", "retain")}
    sets |= {name: rows(name, None, None) for name in ("real_authors", "world_facts")}
    assert actual == Evaluation("evals_forget10", sets, protocol={"name": "open-unlearning"})


def test_open_unlearnings_numbers_come_out_up_to_its_epsilon(tmp_path):
    # memorization.py by hand: the geometric mean of wrong answers over the right one, aggregated
    # set by set
    values = tofu.aggregate(records.read_evaluation(_write(tmp_path, LOG)))
    ratio = [math.exp(-1.5) / (math.exp(-0.75) + 1e-10), math.exp(-3.5) / (math.exp(-1.25) + 1e-10)]
    expected = sum(min(r, 1 / (r + 1e-10)) for r in ratio) / 2
    assert values["forget/truth_ratio"] == pytest.approx(expected, rel=1e-8)
    ratio = [math.exp(-1.5) / math.exp(-0.5), math.exp(-3.5) / math.exp(-1.5)]
    assert values["world_facts/truth_ratio"] == pytest.approx(sum(max(0, 1 - r) for r in ratio) / 2)
    options = [
        math.exp(-0.5) / (math.exp(-0.5) + math.exp(-1) + math.exp(-2)),
        math.exp(-1.5) / (math.exp(-1.5) + math.exp(-3) + math.exp(-4)),
    ]
    assert values["real_authors/probability"] == pytest.approx(sum(options) / 2)


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
    ],
)
def test_a_damaged_log_of_open_unlearning_is_refused_in_one_line(tmp_path, edit, message):
    content = copy.deepcopy(LOG)
    edit(content)
    path = _write(tmp_path, content)
    with pytest.raises(ValueError, match=r".") as error:
        records.read_evaluation(path)
    assert str(error.value) == f"{path}: {message}"
