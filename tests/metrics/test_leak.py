"""The leak: by hand, undefined where nothing can be divided, intervals against a plain bootstrap."""

import numpy as np
import pytest

from tif.metrics.leak import leak, leak_of_questions


def test_leak_is_the_share_of_what_only_the_target_yields():
    assert leak(target=0.9, unlearned=0.5, retain=0.1) == pytest.approx(0.5)
    assert leak(target=0.9, unlearned=0.1, retain=0.1) == 0
    assert leak(target=0.9, unlearned=0.9, retain=0.1) == 1
    assert leak(target=0.1, unlearned=0.2, retain=0.5) == pytest.approx(0.75)  # the other way round


def test_nothing_is_divided_where_target_and_retain_model_do_not_differ():
    assert leak(0.5, 0.9, 0.495) is None
    noise = {"target": [0.0, 1.0, 0.0, 0.0], "unlearned": [1.0] * 4, "retain": [0.0, 0.0, 1.0, 0.2]}
    row = leak_of_questions(noise, 500, 0)
    assert row.target - row.retain == pytest.approx(-0.05)  # a difference, but the interval holds 0
    assert (row.leak, row.interval) == (None, None)
    assert row.reason == "target and retain model do not differ"


def test_a_question_without_a_value_is_left_out_of_all_three():
    values = {"target": [1.0, 1.0, 0.0], "unlearned": [0.5, 0.5, None], "retain": [0.0, 0.0, 1.0]}
    row = leak_of_questions(values, 200, 0)
    assert (row.target, row.unlearned, row.retain, row.leak) == (1, 0.5, 0, 0.5)
    assert leak_of_questions({"target": [None], "unlearned": [1.0], "retain": [0.0]}, 200, 0).reason


def test_the_interval_is_that_of_a_plain_bootstrap_over_questions():
    rng = np.random.default_rng(0)
    target, retain = rng.uniform(0.6, 1, 30), rng.uniform(0, 0.4, 30)
    unlearned = rng.uniform(0, 1, 30)
    drawn = []
    for _ in range(4000):
        i = rng.integers(30, size=30)
        drawn.append((unlearned[i] - retain[i]).mean() / (target[i] - retain[i]).mean())
    values = {"target": target.tolist(), "unlearned": unlearned.tolist(), "retain": retain.tolist()}
    actual = leak_of_questions(values, 4000, 0).interval
    assert actual == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
