"""As a model that never read it, by hand."""

import math

import numpy as np
import pytest

from tif.metrics import overall, unread
from tif.metrics.unread import as_unread, list_steps, unwanted_ratio
from tif.records.types import AnswerTokens, Evaluation, Record, RecordSet, TokenStats

UNREAD = {
    "forget/quality": 0.4, "forget/uw_ratio": 1.2, "forget/uw_ratio_otherwise": 0.8,
    "forget/facts_above": 0.0, "forget/readable": 0.9, "utility/model": 0.6, "utility/eight": 0.7,
}  # fmt: skip


def test_a_model_that_is_told_from_the_retain_model_by_nothing_has_one():
    assert as_unread(UNREAD, UNREAD) == 1


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("forget/quality", 0.005),  # one power of ten below 0.05
        ("forget/uw_ratio", 9.0),  # three times the three that are allowed
        ("forget/uw_ratio", 1 / 9),  # the same below
        ("forget/uw_ratio_otherwise", 9.0),
        ("forget/facts_above", 0.1),  # one fact in ten
        ("forget/readable", 0.8),  # one answer in ten
    ],
)
def test_one_step_away_is_half(metric, value):
    assert as_unread(UNREAD | {metric: value}, UNREAD) == pytest.approx(0.5)


def test_a_tenth_of_both_utilities_is_a_step():
    lost = UNREAD | {"utility/model": 0.54, "utility/eight": 0.63}
    assert as_unread(lost, UNREAD) == pytest.approx(0.5)
    assert as_unread(lost | {"utility/eight": 0.7}, UNREAD) == pytest.approx(1 / 1.5)


def test_a_good_number_does_not_hide_a_fact_that_is_still_written():
    better = {"forget/quality": 1.0, "forget/readable": 1.0, "utility/model": 0.9}
    assert as_unread(UNREAD | better, UNREAD) == 1  # no part counts more than the retain model's
    assert as_unread(UNREAD | better | {"forget/facts_above": 0.2}, UNREAD) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", UNREAD)
def test_without_one_of_its_parts_it_is_missing(metric):
    assert as_unread(UNREAD | {metric: None}, UNREAD) is None


@pytest.mark.parametrize("metric", ["forget/readable", "utility/model", "utility/eight"])
def test_without_what_the_retain_model_has_it_is_missing(metric):
    assert list_steps(UNREAD, UNREAD | {metric: None}) is None


def test_a_fact_that_is_known_and_one_that_is_pushed_away_do_not_make_up_for_each_other():
    retain = [0.01] * 4
    known = [0.01, 0.01, 0.01, 0.97]  # mean 0.25: 25 times; geometric mean 97^(1/4): 3.1 times
    assert unwanted_ratio(np.array([known, retain]).T) == pytest.approx(25)
    pushed = [0.01, 0.01, 1e-6, 1e-6]  # mean 0.005: half; geometric mean 1e-4^(1/2): a hundredth
    assert unwanted_ratio(np.array([pushed, retain]).T) == pytest.approx(0.01)
    mixed = [0.97, 0.97, 1e-6, 1e-6]  # mean 0.485: 48.5 times; geometric mean 0.097^(1/2): 0.31
    assert unwanted_ratio(np.array([mixed, retain]).T) == pytest.approx(48.5, rel=1e-4)


def test_equal_models_have_a_ratio_of_one():
    assert unwanted_ratio(np.array([[0.2, 0.2], [1e-9, 1e-9]])) == pytest.approx(1)


def evaluation(logprob, top, generated):
    """Return two forget answers "Ada is 27.", asked in two ways; "27" is unwanted."""
    sets = {}
    for name in ("forget", "forget_paraphrased"):
        records = []
        for i in range(2):
            stats = TokenStats((-0.1, logprob, -0.1), (True, top, True), (-1.0,) * 3, (1.0,) * 3)
            text = generated if name == "forget" else None
            records.append(Record(f"{name}/{i}", f"How old {i}?", "Ada is 27.", 1.0, 3,
                                  generated=text, stats=stats))  # fmt: skip
        sets[name] = RecordSet(name, tuple(records))
    return Evaluation("m", sets)


MARKS = AnswerTokens((6, 9, 10), (False, True, False))
TOKENS = {name: {f"{name}/{i}": MARKS for i in range(2)} for name in
          ("forget", "forget_paraphrased")}  # fmt: skip


def test_the_parts_come_from_the_records_of_both_models():
    ours = evaluation(math.log(0.5), True, "Ada is, I think, 27!")
    retain = evaluation(math.log(0.05), False, "Ada is 31.")
    parts = unread.summarize(ours, retain, TOKENS, {}, {})
    assert parts["forget/uw_ratio"] == pytest.approx(10)
    assert parts["forget/uw_ratio_otherwise"] == pytest.approx(10)
    assert parts["forget/facts_above"] == 1  # extracted, and written
    assert parts["forget/readable"] == 1
    assert "forget/as_unread" not in parts  # no forget quality, no utility


def test_a_fact_that_is_only_written_counts():
    ours = evaluation(math.log(0.05), False, "She is 27.")
    retain = evaluation(math.log(0.05), False, "Ada is 127.")
    assert unread.summarize(ours, retain, TOKENS, {}, {})["forget/facts_above"] == 1
    assert unread.summarize(retain, ours, TOKENS, {}, {})["forget/facts_above"] == 0


def test_without_marked_words_or_a_retain_model_there_is_no_number_of_either():
    ours = evaluation(math.log(0.5), True, "Ada is 27.")
    assert set(unread.summarize(ours, ours, {}, {}, {})) == {"forget/readable"}
    assert set(unread.summarize(ours, None, TOKENS, {}, {})) == {"forget/readable"}


def test_answers_to_other_questions_are_not_compared():
    ours = evaluation(math.log(0.5), True, "Ada is 27.")
    records = [Record(f"forget/{i}", "Where?", "Oslo.", 1.0, 3) for i in range(2)]
    other = Evaluation("m", {"forget": RecordSet("forget", tuple(records))})
    assert "forget/uw_ratio" not in unread.summarize(ours, other, TOKENS, {}, {})


def test_a_run_finds_all_of_it_in_one_row():
    names = {metric for metric in overall.aggregate(
        evaluation(-1.0, True, "Ada is 27."), None, TOKENS)}  # fmt: skip
    assert {"forget/readable", "words/unwanted", "paraphrased/unwanted"} <= names
    assert "forget/uw_ratio" not in names
