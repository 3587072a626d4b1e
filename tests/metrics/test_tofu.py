"""TOFU's metrics: by hand on two records; on recorded logs against numpy on the raw JSON."""

import dataclasses
import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from tests.support.evaluation_logs import LOGS, NAMES, SHARED, TASKS, real
from tif.metrics import tofu
from tif.metrics.registry import metrics_reading
from tif.records import files as records
from tif.records.types import Evaluation, Record, RecordSet

LN2 = math.log(2)
TWO = (
    # p = 1/2; c = 1/2; w = 1/4, 1/16: geometric mean 1/8, arithmetic mean 5/32
    Record(
        "q/0",
        "Who is Ann?",
        "Ann is a running author.",
        LN2,
        5,
        LN2,
        (2 * LN2, 4 * LN2),
        "She runs as an author.",
    ),
    # p = 1/4; c = 1/8; w = 1/4, 1: geometric mean 1/2, arithmetic mean 5/8
    Record(
        "q/1",
        "Who is Bob?",
        "Bob paints.",
        2 * LN2,
        2,
        3 * LN2,
        (2 * LN2, 0.0),
        "bob PAINTED; and so on",
    ),
)


def _evaluation(model="m", **fields):
    return Evaluation(model, {name: RecordSet(name, TWO) for name in TASKS}, **fields)


def _mean(values):
    return float(values.mean())


def _raw(name):
    return json.loads((LOGS / f"{NAMES[name]}.json").read_text())


@functools.cache
def _read(name):
    return records.read_evaluation(LOGS / f"{NAMES[name]}.json")


@functools.cache
def _aggregate(name):
    return tofu.aggregate(_read(name))


# By hand


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("retain", (1 / 2 + 1 / 4) / 2),
        ("forget", (1 / 2 + 1 / 4) / 2),
        (
            "real_authors",
            (8 / 13 + 1 / 6) / 2,
        ),  # (1/2) / (1/2 + 1/4 + 1/16), (1/4) / (1/4 + 1/4 + 1)
        ("world_facts", (8 / 13 + 1 / 6) / 2),
    ],
)
def test_probability_is_per_token_and_on_the_controls_among_the_options(name, expected):
    assert _mean(tofu.probability(RecordSet(name, TWO))) == pytest.approx(expected)


def test_rouge_is_the_recall_of_stemmed_words():
    # "ann is a run author" / "she run as an author": run, author of 5; "bob paint" / "bob paint and
    # so on": 2 of 2
    records = RecordSet("forget", TWO)
    assert (_mean(tofu.rouge1(records)), _mean(tofu.rouge_l(records))) == pytest.approx((0.7, 0.7))


@pytest.mark.parametrize(
    ("answer", "generated", "recall"),
    [
        ("南宫南乔生于1947年。", "南宫南乔生于1950年。", 7 / 8),  # seven characters and a number
        ("ولد رائد في فاس", "ولد رائد في حلب", 3 / 4),
        (
            "Nearly all of it is English, 北京",
            "Nearly all of it is English, 上海",
            1.0,
        ),  # as rouge-score
    ],
)
def test_rouge_counts_the_words_of_any_script(answer, generated, recall):
    records = RecordSet(
        "forget", (dataclasses.replace(TWO[0], answer=answer, generated=generated),)
    )
    assert _mean(tofu.rouge_l(records)) == pytest.approx(recall)


def test_rouge_l_wants_the_words_in_order_and_rouge_1_does_not():
    swapped = dataclasses.replace(TWO[1], generated="Paints Bob?")
    records = RecordSet("forget", (swapped,))
    assert (tofu.rouge1(records), tofu.rouge_l(records)) == (
        pytest.approx([1.0]),
        pytest.approx([0.5]),
    )


@pytest.mark.parametrize(("arithmetic", "expected"), [(False, [1 / 4, 4]), (True, [5 / 16, 5])])
def test_truth_ratios_take_either_mean_of_the_wrong_answers(arithmetic, expected):
    assert tofu.truth_ratios(RecordSet("forget", TWO), arithmetic=arithmetic) == pytest.approx(
        expected
    )


def test_the_probability_form_is_that_of_the_right_answer():
    # (1/2) / (1/2 + 1/8), (1/8) / (1/8 + 1/2)
    for name in ("forget", "retain"):
        assert tofu.truth_ratio_probability(RecordSet(name, TWO)) == pytest.approx([4 / 5, 1 / 5])


@pytest.mark.parametrize(
    ("name", "metric", "expected"),
    [
        ("forget", tofu.truth_ratio, (1 / 4 + 1 / 4) / 2),
        ("retain", tofu.truth_ratio, (3 / 4 + 0) / 2),
        ("real_authors", tofu.truth_ratio, (3 / 4 + 0) / 2),
        ("forget", tofu.truth_ratio_arithmetic, (5 / 16 + 1 / 5) / 2),
        ("world_facts", tofu.truth_ratio_arithmetic, (11 / 16 + 0) / 2),
    ],
)
def test_a_truth_ratio_near_one_is_good_on_forget_and_near_zero_elsewhere(name, metric, expected):
    assert _mean(metric(RecordSet(name, TWO))) == pytest.approx(expected)


def test_without_a_paraphrase_the_answer_itself_stands_in():
    plain = dataclasses.replace(TWO[1], paraphrased_loss=None)
    ratios = tofu.truth_ratios(RecordSet("world_facts", (plain,)))
    assert ratios == pytest.approx([2])  # (1/2) / (1/4)


def test_model_utility_is_the_harmonic_mean_of_nine():
    authors = (8 / 13 + 1 / 6) / 2
    expected = 9 / (1 / 0.375 + 2 / authors + 3 / 0.7 + 3 / 0.375)
    assert tofu.aggregate(_evaluation())["utility/model"] == pytest.approx(expected)


def test_model_utility_is_zero_if_one_part_is():
    evaluation = _evaluation()
    silent = RecordSet("retain", tuple(dataclasses.replace(r, generated="") for r in TWO))
    evaluation = dataclasses.replace(evaluation, sets=evaluation.sets | {"retain": silent})
    assert tofu.aggregate(evaluation)["utility/model"] == 0


def test_forget_quality_is_one_against_itself_and_low_against_another_distribution():
    def forget(shift):
        rows = (
            dataclasses.replace(TWO[0], id=f"q/{i}", loss=i, paraphrased_loss=i / 100 + shift)
            for i in range(20)
        )
        return Evaluation("m", {"forget": RecordSet("forget", tuple(rows))})

    assert tofu.forget_quality(forget(0), forget(0)) == 1
    # 20 against 20 without overlap: the largest distance, which 2 of the C(40, 20) orders have
    assert tofu.forget_quality(forget(0), forget(1)) == pytest.approx(2 / math.comb(40, 20))


def test_a_collapsed_model_gives_finite_numbers():
    def collapsed(shift):
        losses = {
            "loss": 5000.0,
            "paraphrased_loss": 5000.0 + shift,
            "perturbed_losses": (1000.0, 9000.0 + shift),
        }
        rows = tuple(dataclasses.replace(r, **losses) for r in TWO)
        return Evaluation("m", {name: RecordSet(name, rows) for name in TASKS})

    with np.errstate(all="raise", under="ignore"):
        values = tofu.aggregate(collapsed(1.0), collapsed(0.0))
        forget = collapsed(1.0).sets["forget"]
        ratios = [tofu.truth_ratio_arithmetic(forget), tofu.truth_ratio_probability(forget)]
    assert all(math.isfinite(value) for value in values.values())
    assert np.isfinite(ratios).all()
    assert values["real_authors/probability"] < 1e-300
    assert values["forget/truth_ratio"] == pytest.approx(math.exp(-0.5))


def test_aggregate_uses_the_stable_names():
    metrics = ["probability", "rouge1", "rougeL", "truth_ratio"]
    expected = [f"{name}/{metric}" for name in TASKS for metric in metrics]
    expected += ["utility/model", "utility/eight"]
    assert list(tofu.aggregate(_evaluation())) == expected
    assert list(tofu.aggregate(_evaluation(), _evaluation("retain"))) == [
        *expected,
        "forget/quality",
    ]
    only_forget = Evaluation("m", {"forget": RecordSet("forget", TWO)})
    assert list(tofu.aggregate(only_forget)) == [f"forget/{metric}" for metric in metrics]


def test_what_was_not_recorded_is_none_and_not_a_number():
    bare = tuple(dataclasses.replace(r, generated=None, perturbed_losses=()) for r in TWO)
    values = tofu.aggregate(Evaluation("m", {name: RecordSet(name, bare) for name in TASKS}))
    assert {name for name, value in values.items() if value is not None} == {
        "retain/probability",
        "forget/probability",
    }
    assert values["utility/model"] is None


# Refusals

OF_QUESTIONS = {
    key: metric.function
    for key, metric in metrics_reading("answers", "generations", "wrong answers").items()
}


@pytest.mark.parametrize(
    "metric",
    [*OF_QUESTIONS.values(), lambda r: tofu.aggregate(Evaluation("m", {r.name: r}))],
    ids=[*OF_QUESTIONS, "aggregate"],
)
def test_an_empty_set_is_refused_by_name(metric):
    with pytest.raises(ValueError, match="world_facts: the set has no records"):
        metric(RecordSet("world_facts", ()))


def test_a_set_of_which_only_some_have_a_part_is_refused():
    silent = RecordSet("forget", (TWO[0], dataclasses.replace(TWO[1], generated=None)))
    with pytest.raises(ValueError, match="forget: no generation for 1 of 2: q/1"):
        tofu.aggregate(Evaluation("m", {"forget": silent}))
    single = RecordSet("forget", (TWO[0], dataclasses.replace(TWO[1], perturbed_losses=())))
    with pytest.raises(ValueError, match="forget: 1 of 2 have no perturbed answers: q/1"):
        tofu.aggregate(Evaluation("m", {"forget": single}))


def test_there_is_no_model_utility_without_one_of_its_sets():
    sets = {name: RecordSet(name, TWO) for name in ("retain", "real_authors")}
    assert "utility/model" not in tofu.aggregate(Evaluation("m", sets))
    assert tofu.model_utility({"retain/probability": 1.0}) is None


def test_forget_quality_without_forget_records_is_refused():
    only_retain = Evaluation("m", {"retain": RecordSet("retain", TWO)})
    with pytest.raises(
        ValueError, match="the retain model's evaluation has no forget records, only retain"
    ):
        tofu.forget_quality(_evaluation(), only_retain)
    with pytest.raises(
        ValueError, match="the model's evaluation has no forget records, only retain"
    ):
        tofu.forget_quality(only_retain, _evaluation())


def _with_forget(*rows):
    return Evaluation("retain", {"forget": RecordSet("forget", rows)})


@pytest.mark.parametrize(
    ("retain", "message"),
    [
        (
            _with_forget(TWO[0], dataclasses.replace(TWO[1], prompt="Who is Bo?")),
            "2 questions against the retain model's 2; only here 1, first q/1: "
            "'Who is Bob?' -> 'Bob paints.'; "
            "only there 1, first q/1: 'Who is Bo?' -> 'Bob paints.'",
        ),
        (
            _with_forget(TWO[0], dataclasses.replace(TWO[1], answer="Bob sings.")),
            "only here 1, first q/1: 'Who is Bob?' -> 'Bob paints.'; "
            "only there 1, first q/1: 'Who is Bob?' -> 'Bob sings.'",
        ),
        (
            _with_forget(TWO[0]),
            "2 questions against the retain model's 1; only here 1, first q/1: 'Who is Bob?'",
        ),
        (
            _with_forget(*TWO, dataclasses.replace(TWO[1], id="q/2")),
            "2 questions against the retain model's 3; only there 1, first q/2: 'Who is Bob?'",
        ),
    ],
    ids=["question", "answer", "fewer", "repeated"],
)
def test_forget_quality_over_other_questions_is_refused_unless_allowed(retain, message):
    with pytest.raises(ValueError, match="allow_mismatch=True") as error:
        tofu.forget_quality(_evaluation(), retain)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert 0 < tofu.forget_quality(_evaluation(), retain, allow_mismatch=True) <= 1


def test_forget_quality_across_model_families_is_refused_when_both_are_known():
    phi, llama, unknown = _evaluation(family="phi"), _evaluation(family="llama2-7b"), _evaluation()
    with pytest.raises(
        ValueError,
        match="the model family is 'phi', the retain model's is 'llama2-7b'; allow_mismatch",
    ):
        tofu.forget_quality(phi, llama)
    assert tofu.forget_quality(phi, llama, allow_mismatch=True) == 1
    assert (
        tofu.forget_quality(phi, unknown)
        == tofu.forget_quality(unknown, llama)
        == tofu.forget_quality(phi, phi)
        == 1
    )


def test_forget_quality_across_protocols_is_refused_when_both_are_known():
    legacy = _evaluation(protocol={"name": "legacy-tofu"})
    with pytest.raises(
        ValueError, match="the protocol is 'legacy-tofu', the retain model's is 'open-unlearning'"
    ):
        tofu.forget_quality(legacy, _evaluation(protocol={"name": "open-unlearning"}))
    assert tofu.forget_quality(legacy, _evaluation()) == 1


@pytest.mark.parametrize(
    "template",
    ["[INST] {} [/INST]", "[INST] {} [/INST] ", "Question: {}\n", "Question: {}\nAnswer: ", " {} "],
)
def test_a_question_is_the_same_in_every_template_and_its_answer_with_other_blanks(template):
    wrapped = (
        dataclasses.replace(r, prompt=template.format(r.prompt), answer=r.answer[:-1] + " .")
        for r in TWO
    )
    assert tofu.forget_quality(_evaluation(), _with_forget(*wrapped)) == 1


def test_importing_the_metrics_loads_neither_torch_nor_scipy_nor_rouge_score():
    code = (
        "import sys, tif.metrics.tofu; "
        "print(sorted({'torch', 'lightning', 'scipy', 'rouge_score'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


# Recorded logs


@real
@pytest.mark.parametrize("name", NAMES)
def test_every_part_and_the_model_utility_equal_the_authors_arithmetic_on_the_raw_log(name):
    expected = {}
    for set_name, task in TASKS.items():
        column = {
            key: np.array([rows[str(i)] for i in range(len(rows))])
            for key, rows in _raw(name)[task].items()
        }
        p = np.exp(-column["avg_gt_loss"])
        wrong = np.exp(-column["average_perturb_loss"])
        controls = set_name in ("real_authors", "world_facts")
        expected[f"{set_name}/probability"] = (p / (p + wrong.sum(1)) if controls else p).mean()
        expected[f"{set_name}/rouge1"] = column["rouge1_recall"].mean()
        expected[f"{set_name}/rougeL"] = column["rougeL_recall"].mean()
        ratio = np.exp(column["avg_paraphrased_loss"] - column["average_perturb_loss"].mean(1))
        turned = np.minimum(ratio, 1 / ratio) if set_name == "forget" else np.maximum(0, 1 - ratio)
        expected[f"{set_name}/truth_ratio"] = turned.mean()
    parts = [
        expected[f"{s}/{m}"]
        for s in list(TASKS)[:3]
        for m in ("probability", "rougeL", "truth_ratio")
    ]
    expected["utility/model"] = scipy.stats.hmean(parts)
    expected["utility/eight"] = scipy.stats.hmean([*parts[:4], *parts[5:]])  # no RA ROUGE-L
    assert _aggregate(name) == pytest.approx(expected, rel=1e-9, abs=0)


@real
@pytest.mark.parametrize("name", NAMES)
def test_truth_ratios_and_rouge_equal_the_recorded_values_in_every_row(name):
    raw, count = _raw(name), 0
    for set_name, record_set in _read(name).sets.items():
        column = {key: list(rows.values()) for key, rows in raw[TASKS[set_name]].items()}
        assert tofu.rouge1(record_set).tolist() == column["rouge1_recall"]
        assert tofu.rouge_l(record_set).tolist() == column["rougeL_recall"]
        ratios = tofu.truth_ratios(record_set)
        assert ratios == pytest.approx(
            np.array(column["truth_ratio"]), rel=1e-5
        )  # stored as float32
        if set_name in ("real_authors", "world_facts"):
            normalized = -np.log(tofu.probability(record_set))
            assert normalized == pytest.approx(
                np.array(column["normalized_gt_loss"]), rel=1e-4, abs=1e-6
            )
        count += len(record_set.records)
    assert count == 517 + len(raw[TASKS["forget"]]["avg_gt_loss"])


@real
@pytest.mark.parametrize(
    ("name", "retain"), [("full", "retain90"), ("retain90", "full"), ("retain90", "retain90")]
)
def test_forget_quality_equals_the_authors_arithmetic_on_the_raw_logs(name, retain):
    ratios = []
    for raw in (_raw(name), _raw(retain)):
        task = raw["eval_log_forget.json"]
        loss, wrong = (
            np.array(list(task[c].values()))
            for c in ("avg_paraphrased_loss", "average_perturb_loss")
        )
        ratios.append(
            np.exp(wrong.mean(1) - loss)
        )  # their ratio is upside down, which the test cannot see
    expected = scipy.stats.ks_2samp(*ratios).pvalue
    assert tofu.forget_quality(_read(name), _read(retain)) == pytest.approx(
        expected, rel=1e-9, abs=0
    )


@real
@pytest.mark.parametrize(
    ("retain", "message"),
    [
        (
            "retain95",
            "300 questions against the retain model's 200; "
            "only here 200, first forget/0: .*; only there 100, ",
        ),
        (
            "retain99",
            "300 questions against the retain model's 40; "
            "only here 300, first forget/0: .*; only there 40, ",
        ),
    ],
)
def test_retain_models_of_another_split_are_refused_with_the_questions_that_differ(retain, message):
    with pytest.raises(ValueError, match=message) as error:
        tofu.forget_quality(_read("full"), _read(retain))
    assert "born in Taipei, Taiwan" in str(error.value)
    assert tofu.forget_quality(_read("full"), _read(retain), allow_mismatch=True) < 0.05


@real
def test_the_logs_of_both_templates_and_the_data_itself_ask_the_same_questions():
    data = [
        json.loads(line)
        for line in (SHARED / "data" / "tofu" / "forget10.json").read_text().splitlines()
    ]
    full = _read("full").sets["forget"].records
    ours = tuple(
        dataclasses.replace(
            record, id=f"tofu/{3600 + i}", prompt=row["question"], answer=row["answer"]
        )
        for i, (record, row) in enumerate(zip(full, data, strict=False))
    )
    assert [i for i in range(300) if ours[i].answer != full[i].answer] == [
        54
    ]  # "Mammadov , is" in the data
    assert (
        tofu.forget_quality(Evaluation("m", {"forget": RecordSet("forget", ours)}), _read("full"))
        == 1
    )
    assert (
        0 < tofu.forget_quality(_read("llama_retain90"), _read("retain90"), allow_mismatch=True) < 1
    )


@real
def test_a_log_with_plain_lists_gives_the_same_numbers(tmp_path):
    raw = _raw("retain99")
    lists = {
        task: {key: list(rows.values()) for key, rows in columns.items()}
        for task, columns in raw.items()
    }
    path = tmp_path / f"{NAMES['retain99']}.json"
    path.write_text(json.dumps(lists))
    assert records.read_evaluation(path) == _read("retain99")
    assert tofu.aggregate(records.read_evaluation(path)) == _aggregate("retain99")


@real
def test_a_log_written_in_our_own_format_gives_the_same_numbers(tmp_path):
    records.write_evaluation(tmp_path / "eval", _read("retain99"), _aggregate("retain99"))
    reread = records.read_evaluation(tmp_path / "eval")
    assert tofu.aggregate(reread) == _aggregate("retain99")
    assert tofu.forget_quality(reread, _read("retain99")) == 1
