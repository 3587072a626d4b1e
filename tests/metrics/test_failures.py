"""Each signature by hand, on both sides of its limit."""

import pytest

from tif.config.evaluation import FAILURES
from tif.metrics.failures import (
    find_failures,
    find_identifier_failures,
    find_nothing_to_forget,
)

START = {"utility/model": 0.6, "forget/quality": 1e-8, "retain/loss": 0.8, "retain/kl": 0.0}
FINE = {"utility/model": 0.5, "forget/quality": 0.3, "retain/loss": 0.9, "retain/kl": 0.1}


def named(now, progress=1.0, start=START):
    return [(f.name, f.value) for f in find_failures(start, FINE | now, progress)]


def test_a_good_run_shows_none():
    assert named({}) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"utility/model": 0.16}, []),
        ({"utility/model": 0.14}, [("collapse", 0.14)]),
        ({"retain/kl": 0.49}, []),
        ({"retain/kl": 0.51}, [("over_forgetting", 0.51)]),
        ({"retain/kl": None, "retain/loss": 1.29}, []),
        ({"retain/kl": None, "retain/loss": 1.4}, [("over_forgetting", pytest.approx(0.6))]),
        ({"forget/quality": 0.06}, []),
        ({"forget/quality": 2e-7}, []),  # rose by a factor of 20
        ({"forget/quality": 5e-8}, [("under_forgetting", 5e-8)]),
        ({"muse/privleak": -19.0, "forget/quality": None}, []),
        ({"muse/privleak": -80.0, "forget/quality": None}, [("under_forgetting", -80.0)]),
        ({"utility/model": 0.0, "retain/kl": 3.0}, [("collapse", 0.0), ("over_forgetting", 3.0)]),
    ],
)
def test_each_signature_begins_at_its_limit(now, expected):
    assert named(now) == expected


def test_under_forgetting_is_not_told_before_half_of_the_training():
    assert named({"forget/quality": 1e-8}, progress=0.4) == []
    assert named({"forget/quality": 1e-8}, progress=0.5) == [("under_forgetting", 1e-8)]


def test_a_model_that_was_good_for_nothing_does_not_collapse():
    assert named({"utility/model": 0.0}, start=START | {"utility/model": 0.04}) == []


@pytest.mark.parametrize("now", [{}, {"utility/model": 0.1}])
def test_what_was_not_measured_is_not_held_against_the_run(now):
    assert find_failures({}, now, 1.0) == []


@pytest.mark.parametrize(
    ("share", "agreement", "expected"),
    [
        (0.3, None, []),
        (0.02, None, [("identifier", 0.02)]),
        (0.97, 0.9, [("identifier", 0.97)]),
        (0.3, 0.51, []),
        (0.3, 0.4, [("identifier", 0.4)]),
    ],
)
def test_an_identifier_fails_by_share_or_agreement(share, agreement, expected):
    assert [(f.name, f.value) for f in find_identifier_failures(share, agreement)] == expected


def test_each_line_has_the_number_and_what_is_wanted():
    lines = {
        f.name: f.line
        for f in find_failures(
            START, {"utility/model": 0.1, "retain/kl": 2.0, "forget/quality": 1e-9}, 1
        )
    }
    lines |= {f.name: f.line for f in find_identifier_failures(0.01, None)}
    lines |= {f.name: f.line for f in find_nothing_to_forget({"known/retain_gain": 0.01})}
    assert set(lines) == set(FAILURES)
    assert (
        lines["collapse"] == "model utility is 0.1, was 0.6 before; want at least a quarter of that"
    )
    assert lines["over_forgetting"].startswith(
        "KL(original || policy) on the retain set is 2.00 nats a token, want"
    )
    assert "1.0e-09, was 1.0e-08" in lines["under_forgetting"]
    assert lines["identifier"] == "1% of the forget answers' words are unwanted, want 5% to 95%"
