import zlib

import numpy as np
import pytest
import scipy.stats

from tif.metrics import intervals


def test_each_draw_takes_as_many_questions_as_there_are():
    taken = intervals.draw_counts(7, 500, 3, "forget")
    assert taken.shape == (500, 7)
    assert (taken.sum(1) == 7).all()
    # each question Binomial(7, 1/7) times: once on average, variance 6/7
    assert taken.mean(0) == pytest.approx(np.ones(7), abs=0.15)
    assert taken.var() == pytest.approx(6 / 7, abs=0.1)


def test_draws_belong_to_the_seed_and_the_set():
    first = intervals.draw_counts(9, 100, 3, "forget")
    assert (first == intervals.draw_counts(9, 100, 3, "forget")).all()
    assert (first != intervals.draw_counts(9, 100, 4, "forget")).any()
    assert (first != intervals.draw_counts(9, 100, 3, "retain")).any()


def test_an_interval_holds_the_middle_95_percent():
    assert intervals.middle_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_the_interval_of_a_mean_is_that_of_plain_resampling():
    values = np.array([0.1, 0.9, 0.4, 0.4, 0.75])
    generator = np.random.default_rng([6, zlib.crc32(b"retain")])
    means = [values[list(row)].mean() for row in generator.integers(5, size=(300, 5))]
    actual = intervals.mean_intervals({"retain": {"rougeL": values, "rouge1": None}}, 300, 6)
    assert actual["retain/rougeL"] == pytest.approx(np.percentile(means, [2.5, 97.5]))
    assert actual["retain/rouge1"] is None
    assert actual["utility/model"] is None


def test_the_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(1).uniform(size=2000)
    low, high = intervals.mean_intervals({"forget": {"probability": values}}, 4000, 0)[
        "forget/probability"
    ]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.001)


def test_the_interval_of_the_utility_draws_each_set_anew():
    generator = np.random.default_rng(2)
    sets = {
        name: {
            metric: generator.uniform(0.2, 1, size=30)
            for metric in ("probability", "rougeL", "truth_ratio")
        }
        for name in ("retain", "real_authors", "world_facts")
    }
    drawn = []
    for _ in range(4000):
        rows = {name: generator.integers(30, size=30) for name in sets}
        drawn.append(
            scipy.stats.hmean(
                [values[rows[n]].mean() for n, own in sets.items() for values in own.values()]
            )
        )
    assert intervals.mean_intervals(sets, 4000, 0)["utility/model"] == pytest.approx(
        np.percentile(drawn, [2.5, 97.5]), abs=0.003
    )


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_draws_are_scipys(ties):
    generator = np.random.default_rng(4)
    ours, theirs = generator.normal(size=40), generator.normal(0.4, size=40)
    if ties:
        ours, theirs = ours.round(1), theirs.round(1)
    taken = intervals.draw_counts(40, 100, 0, "forget")
    taken[0] = 1
    expected = [
        scipy.stats.ks_2samp(np.repeat(ours, row), np.repeat(theirs, row)).pvalue for row in taken
    ]
    actual = intervals.ks_pvalues(ours, theirs, taken)
    assert actual == pytest.approx(expected, rel=1e-9)
    assert actual[0] == pytest.approx(scipy.stats.ks_2samp(ours, theirs).pvalue)


def test_equal_models_have_a_forget_quality_of_one_to_one():
    same = np.arange(10.0)
    assert intervals.forget_quality_interval(same, same, 200, 0) == (1, 1)


def test_the_interval_of_a_small_p_value_is_around_it():
    generator = np.random.default_rng(7)
    ours = generator.normal(size=100)
    theirs = ours * 0.5 + generator.normal(0.8, size=100)
    low, high = intervals.forget_quality_interval(ours, theirs, 1000, 0)
    assert 0 < low < scipy.stats.ks_2samp(ours, theirs).pvalue < high < 1
