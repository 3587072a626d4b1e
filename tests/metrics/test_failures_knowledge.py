import numpy as np
import pytest

from tif.metrics.failures import find_nothing_to_forget, measure_knowledge
from tif.records.files import read_evaluation
from tif.records.types import Evaluation, Record, RecordSet


def evaluation(*losses, paraphrased=None, perturbed=()):
    records = []
    for number, loss in enumerate(losses):
        records.append(Record(f"q{number}", "q", "a", loss, 3, paraphrased, perturbed))
    return Evaluation("m", {"forget": RecordSet("forget", tuple(records))})


def test_the_gain_over_the_retain_model_is_the_mean_difference_of_losses():
    measured = measure_knowledge(evaluation(0.5, 1.0), evaluation(2.0, 1.5))
    assert measured == {"known/retain_gain": pytest.approx(1.0)}


def test_right_answers_are_taken_in_their_other_wording_where_there_is_one():
    start = evaluation(0.5, paraphrased=1.0, perturbed=(2.0, 3.0))
    assert measure_knowledge(start, None) == {"known/wrong_gain": pytest.approx(1.5)}
    start = evaluation(0.5, perturbed=(2.0, 3.0))
    assert measure_knowledge(start, None) == {"known/wrong_gain": pytest.approx(2.0)}


def test_texts_without_either_are_not_measured_here():
    assert measure_knowledge(evaluation(0.5), None) == {}
    assert measure_knowledge(Evaluation("m", {}), None) == {}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ({}, None),
        ({"known/retain_gain": 0.2, "known/wrong_gain": 0.0}, None),  # the first one decides
        ({"known/retain_gain": 0.05, "known/wrong_gain": 2.0}, 0.05),
        ({"known/wrong_gain": 0.6}, None),
        ({"known/wrong_gain": 0.3, "words/unwanted_extracted": 0.9}, 0.3),
        ({"words/unwanted_extracted": 0.06}, None),
        ({"words/unwanted_extracted": 0.04}, 0.04),
    ],
)
def test_a_model_that_does_not_know_the_forget_set_is_named(start, expected):
    failures = find_nothing_to_forget(start)
    assert [failure.value for failure in failures] == ([] if expected is None else [expected])


@pytest.mark.real
@pytest.mark.parametrize(
    ("log", "knows"), [("full_forget10", True), ("full_forget01", True), ("retain90", False)]
)
def test_published_models_are_told_apart_without_a_retain_model(shared, log, knows):
    file = shared / "ou_logs" / f"Llama-3.2-1B-Instruct__{log}.json"
    measured = measure_knowledge(read_evaluation(file), None)
    assert (find_nothing_to_forget(measured) == []) is knows


@pytest.mark.real
def test_a_published_model_is_far_from_its_retain_model(shared):
    logs = []
    for name in ("full_forget10", "retain90"):
        logs.append(read_evaluation(shared / "ou_logs" / f"Llama-3.2-1B-Instruct__{name}.json"))
    gain = measure_knowledge(*logs)["known/retain_gain"]
    losses = [[r.loss for r in log.sets["forget"].records] for log in logs]
    assert gain == pytest.approx(np.mean(losses[1]) - np.mean(losses[0]))
    assert gain > 2
    assert measure_knowledge(logs[1], logs[1])["known/retain_gain"] == 0
