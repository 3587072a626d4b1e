"""The score that ranks epochs, by hand."""

import pytest

from tif.metrics import overall
from tif.records.types import Evaluation, Record, RecordSet


@pytest.mark.parametrize(
    ("quality", "utility", "expected"),
    [
        (1.0, 0.6, 0.75),  # 2 * 0.6 / 1.6
        (0.05, 0.6, 0.75),  # told apart from nothing above it
        (0.005, 0.5, 0.5),  # one power of ten below: 1/2
        (5e-11, 0.1, 0.1),  # nine: 1/10
        (1.0, 0.0, 0.0),
        (0.0, 0.5, 2 * 0.5 / 299.69897 / (0.5 + 1 / 299.69897)),  # log10(0.05) + 300 + 1; never 0
    ],
)
def test_the_score_of_tofu_by_hand(quality, utility, expected):
    assert overall.overall_score(
        {"forget/quality": quality, "utility/model": utility}
    ) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("leak", "knowledge", "expected"),
    [(0.0, 60.0, 0.75), (-50.0, 50.0, 0.5), (25.0, 75.0, 0.75), (-120.0, 60.0, 0.0)],
)
def test_the_score_of_muse_by_hand(leak, knowledge, expected):
    assert overall.overall_score(
        {"muse/privleak": leak, "muse/knowmem_retain": knowledge}
    ) == pytest.approx(expected)


def test_there_is_no_score_without_its_parts():
    assert overall.overall_score({"utility/model": 0.5}) is None
    assert overall.overall_score({"forget/quality": 0.5, "utility/model": None}) is None


def test_smaller_p_values_never_score_higher():
    qualities = [1.0, 0.5, 0.05, 0.01, 1e-3, 1e-6, 1e-20, 1e-100]
    scores = [overall.overall_score({"forget/quality": q, "utility/model": 0.6}) for q in qualities]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores[2:])) == len(scores[2:])


def test_the_best_epoch_is_the_first_of_the_highest_after_the_start():
    rows = [
        {"epoch": 0, "choice/x": 9, "x": 9},
        {"epoch": 1, "choice/x": 1, "x": 9},
        {"epoch": 2, "choice/x": 3, "x": 1},
        {"epoch": 3},
        {"epoch": 4, "choice/x": 3, "x": 3},
    ]
    assert overall.find_best_epoch(rows, "x") == 2
    assert overall.find_best_epoch(rows[:1], "x") is None
    assert overall.find_best_epoch(rows, "y") is None


def test_the_loss_of_the_retain_answers_is_a_mean():
    records = RecordSet(
        "retain", tuple(Record(f"r/{i}", "?", "!", loss, 2) for i, loss in enumerate([1.0, 2.5]))
    )
    assert overall.aggregate(Evaluation("m", {"retain": records}))["retain/loss"] == 1.75


FORGET = {
    "forget/extraction_strength": 0.2,
    "forget/probability": 0.1,
    "forget/truth_ratio": 0.5,
    "forget/rougeL": 0.4,
}


def test_the_distance_to_the_retain_model_by_hand():
    retain = FORGET | {"forget/probability": 0.3, "forget/rougeL": 0.0}
    assert overall.retain_distance(FORGET, retain) == pytest.approx((0.2 + 0.4) / 4)
    assert overall.retain_distance(retain, FORGET) == pytest.approx(
        0.15
    )  # too little counts as too much
    assert overall.retain_distance(FORGET, FORGET) == 0
    assert overall.retain_distance(FORGET, retain | {"forget/rougeL": None}) is None


def test_the_best_epoch_by_distance_is_the_nearest():
    rows = [
        {"epoch": n, "choice/forget/retain_distance": d} for n, d in enumerate((0.0, 0.4, 0.1, 0.3))
    ]
    assert (
        overall.find_best_epoch(rows, overall.get_best_metric("retain_distance")) == 2
    )  # 0 is no candidate
