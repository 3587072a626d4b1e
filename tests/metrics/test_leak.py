"""The leak: by hand, undefined where nothing can be divided, intervals against plain tests."""

import numpy as np
import pytest
import scipy.stats

from tif.metrics.leak import leak, leak_of_questions, ratio_interval

ALONE = [f"question/{i}" for i in range(200)]


def test_leak_is_the_share_of_what_only_the_target_yields():
    assert leak(target=0.9, unlearned=0.5, retain=0.1) == pytest.approx(0.5)
    assert leak(target=0.9, unlearned=0.1, retain=0.1) == 0
    assert leak(target=0.9, unlearned=0.9, retain=0.1) == 1
    assert leak(target=0.1, unlearned=0.2, retain=0.5) == pytest.approx(0.75)  # the other way round


def test_nothing_is_divided_where_target_and_retain_model_do_not_differ():
    assert leak(0.5, 0.9, 0.495) is None
    noise = {"target": [0.0, 1.0, 0.0, 0.0], "unlearned": [1.0] * 4, "retain": [0.0, 0.0, 1.0, 0.2]}
    row = leak_of_questions(noise, ALONE[:4])
    assert row.target - row.retain == pytest.approx(-0.05)  # a difference, but the interval holds 0
    assert (row.leak, row.interval) == (None, None)
    assert row.reason == "target and retain model do not differ"


def test_a_question_without_a_value_is_left_out_of_all_three():
    values = {"target": [1.0, 1.0, 0.0], "unlearned": [0.5, 0.5, None], "retain": [0.0, 0.0, 1.0]}
    row = leak_of_questions(values, ALONE[:3])
    assert (row.target, row.unlearned, row.retain, row.leak) == (1, 0.5, 0, 0.5)
    assert row.interval == pytest.approx((0.5, 0.5))
    assert leak_of_questions({"target": [None], "unlearned": [1.0], "retain": [0.0]}, ["a"]).reason


def test_one_author_is_not_enough_for_a_verdict():
    values = {"target": [0.9, 0.8], "unlearned": [0.5, 0.4], "retain": [0.0, 0.1]}
    row = leak_of_questions(values, ["author/1", "author/1"])
    assert (row.leak, row.interval) == (None, None)
    assert row.reason == "one author is not enough for an interval"


def test_the_interval_holds_the_ratios_that_a_t_test_does_not_reject():
    rng = np.random.default_rng(0)
    target, retain = rng.uniform(0.6, 1, 30), rng.uniform(0, 0.4, 30)
    unlearned = rng.uniform(0, 1, 30)
    values = {"target": target.tolist(), "unlearned": unlearned.tolist(), "retain": retain.tolist()}
    authors = [f"author/{i // 5}" for i in range(30)]
    low, high = leak_of_questions(values, authors).interval
    for ratio, outside in ((low, low - 0.01), (high, high + 0.01)):
        rest = (unlearned - retain) - ratio * (target - retain)
        assert scipy.stats.ttest_1samp(rest.reshape(6, 5).mean(1), 0).pvalue == pytest.approx(0.05)
        rest = (unlearned - retain) - outside * (target - retain)
        assert scipy.stats.ttest_1samp(rest.reshape(6, 5).mean(1), 0).pvalue < 0.05


def test_not_one_leaked_answer_in_forty_may_still_be_nine_percent():
    # The exact 95 % limit of 0 of 40 is 1 - 0.025 ** (1 / 40) = 0.088.
    values = {"target": [1.0] * 40, "unlearned": [0.0] * 40, "retain": [0.0] * 40}
    row = leak_of_questions(values, ALONE[:40])
    assert row.leak == 0
    assert row.interval == pytest.approx((-0.0881, 0.0881), abs=1e-4)


def test_the_interval_covers_the_leak_of_authors_that_share_what_they_leak():
    generator, hits = np.random.default_rng(0), 0
    groups = [f"author/{i // 20}" for i in range(80)]
    for _ in range(500):
        shared = np.repeat(generator.normal(0, 0.15, 4), 20)
        above = 0.2 + shared + generator.normal(0, 0.2, 80)
        below = 0.8 + generator.normal(0, 0.2, 80)
        low, high = ratio_interval(above, below, groups)
        hits += low <= 0.25 <= high
    assert 0.92 <= hits / 500 <= 0.98
