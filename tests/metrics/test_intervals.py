"""Intervals by hand, against plain loops and scipy, and their coverage: exact or simulated."""

import math
import zlib

import numpy as np
import pytest
import scipy.stats

from tif.metrics import intervals
from tif.metrics.intervals import SHARE, Spread

AUTHORS = [f"author/{i // 20}" for i in range(400)]


def test_the_interval_of_a_mean_is_students_over_the_means_of_authors():
    # Authors' means 0.2, 0.6, 0.7: mean 0.5, variance (0.09 + 0.01 + 0.04) / 2 = 0.07.
    values, groups = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.5]), ["a", "a", "b", "b", "c", "c"]
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.07 / 3)
    assert intervals.mean_interval(values, groups) == pytest.approx((0.5 - half, 0.5 + half))
    # On the logit scale: logit 0.5 = 0, and its slope there is 1 / (0.5 * 0.5).
    expected = 1 / (1 + math.exp(half / 0.25))
    actual = intervals.mean_interval(values, groups, SHARE)
    assert actual == pytest.approx((expected, 1 - expected))
    percent = intervals.mean_interval(100 * values, groups, (0.0, 100.0))
    assert percent == pytest.approx((100 * expected, 100 * (1 - expected)))


def test_a_question_of_its_own_gives_scipys_t_interval():
    values = np.random.default_rng(1).normal(size=30)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    actual = intervals.mean_interval(values, [str(i) for i in range(30)])
    assert actual == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_authors_of_unequal_size_are_left_out_one_at_a_time():
    values, groups = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 3.0]), ["a", "b", "b", "c", "c", "c"]
    means = [values[np.array(groups) != left].mean() for left in "abc"]
    variance = 2 / 3 * sum((mean - np.mean(means)) ** 2 for mean in means)
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(variance)
    actual = intervals.mean_interval(values, groups)
    assert actual == pytest.approx((values.mean() - half, values.mean() + half))


def test_one_author_gives_no_interval_and_two_nearly_none():
    values = np.array([0.1, 0.3, 0.5, 0.9])
    assert intervals.mean_interval(values, ["a"] * 4, SHARE) is None
    low, high = intervals.mean_interval(values, ["a", "a", "b", "b"], SHARE)
    assert low < 0.01
    assert high > 0.98
    assert intervals.forget_quality_interval(values, values[::-1], ["a"] * 4, 100, 0) is None


def test_an_interval_stays_in_the_range_of_its_metric():
    values, groups = np.array([0.0, 0.0, 0.1, 5.0]), list("abcd")
    low, high = intervals.mean_interval(values, groups, (0.0, math.inf))
    assert low == 0
    assert high > 5
    near = intervals.mean_interval(np.array([1.0, 1.0, 1.0, 0.9]), groups, SHARE)
    assert 0 < near[0] < 0.975 < near[1] < 1


def test_no_event_in_n_questions_gives_the_exact_limit():
    alone = [str(i) for i in range(40)]
    expected = scipy.stats.binomtest(0, 40).proportion_ci(0.95, "exact").high
    assert intervals.mean_interval(np.zeros(40), alone, SHARE) == pytest.approx((0, expected))
    assert intervals.mean_interval(np.ones(40), alone, SHARE) == pytest.approx((1 - expected, 1))
    # Twenty questions about an author that correlate by 0.3 are worth 20 / (1 + 19 * 0.3) = 2.99.
    low, high = intervals.mean_interval(np.zeros(400), AUTHORS, SHARE)
    assert (low, high) == pytest.approx((0, 1 - 0.025 ** (6.7 / 400)))
    assert intervals.mean_interval(np.zeros(40), alone) == (0, 0)  # no share, so no event


def draw_authors(generator, probability, correlation):
    """400 answers, right or wrong, 20 of each author, that correlate within an author."""
    known = np.full(20, probability)
    if correlation:
        size = (1 - correlation) / correlation
        known = generator.beta(probability * size, (1 - probability) * size, 20)
    return (generator.random(400) < np.repeat(known, 20)).astype(float)


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.3])
def test_95_percent_cover_whatever_the_questions_about_an_author_share(correlation):
    generator, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        values = draw_authors(generator, 0.5, correlation)
        low, high = intervals.mean_interval(values, AUTHORS, SHARE)
        hits += low <= 0.5 <= high
    assert 0.93 <= hits / 1000 <= 0.97  # bootstrap over questions: 0.94, 0.75, 0.52


def test_the_interval_of_a_rare_event_covers_it():
    # Exactly: the interval of each number of events in 40 questions, by its probability.
    alone, covered = [str(i) for i in range(40)], 0.0
    for events in range(41):
        values = np.repeat([1.0, 0.0], [events, 40 - events])
        low, high = intervals.mean_interval(values, alone, SHARE)
        covered += scipy.stats.binom.pmf(events, 40, 0.05) * (low <= 0.05 <= high)
    assert covered > 0.94  # bootstrap over questions: 0.84


def test_the_interval_of_the_utility_leaves_out_groups_of_each_set_in_turn():
    generator = np.random.default_rng(2)
    parts, names = (
        ("probability", "rougeL", "truth_ratio"),
        ("retain", "real_authors", "world_facts"),
    )
    sets = {name: {part: generator.uniform(0.2, 1, 30) for part in parts} for name in names}
    groups = {name: [str(i) for i in range(30)] for name in names}
    groups["retain"] = [str(i // 5) for i in range(30)]

    def utility(chosen):
        means = [sets[name][part][chosen[name]].mean() for name in names for part in parts]
        return scipy.stats.hmean(means)

    everything = {name: np.arange(30) for name in names}
    variances, freedoms = [], []
    for name in names:
        set_groups = np.array(groups[name])
        left_out = []
        for group in dict.fromkeys(groups[name]):
            left_out.append(utility(everything | {name: np.flatnonzero(set_groups != group)}))
        count = len(left_out)
        variances.append((count - 1) * np.var(left_out))
        freedoms.append(count - 1)
    total = sum(variances)
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    value = utility(everything)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(total) / (value * (1 - value))
    expected = scipy.special.expit(scipy.special.logit(value) + np.array([-half, half]))
    values = {f"{name}/{part}": sets[name][part] for name in names for part in parts}
    assert intervals.utility_interval(values, groups) == pytest.approx(tuple(expected))
    assert intervals.utility_interval({"retain/rougeL": values["retain/rougeL"]}, groups) is None


def test_the_freedom_of_equal_variances_is_that_of_both_samples():
    assert intervals.count_freedom([Spread(2.0, 5, 5), Spread(2.0, 5, 5)]) == 8
    assert intervals.count_freedom([Spread(2.0, 5, 5), Spread(0.0, 9, 9)]) == 4


def test_each_draw_takes_as_many_authors_as_there_are():
    taken = intervals.draw_counts(7, 500, 3, "forget")
    assert taken.shape == (500, 7)
    assert (taken.sum(1) == 7).all()
    # each author Binomial(7, 1/7) times: once on average, variance 6/7
    assert taken.mean(0) == pytest.approx(np.ones(7), abs=0.15)
    assert taken.var() == pytest.approx(6 / 7, abs=0.1)


def test_draws_belong_to_the_seed_and_the_set():
    first = intervals.draw_counts(9, 100, 3, "forget")
    assert (first == intervals.draw_counts(9, 100, 3, "forget")).all()
    assert (first != intervals.draw_counts(9, 100, 4, "forget")).any()
    assert (first != intervals.draw_counts(9, 100, 3, "retain")).any()


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_draws_are_scipys(ties):
    generator = np.random.default_rng(4)
    ours, theirs = generator.normal(size=40), generator.normal(0.4, size=40)
    if ties:
        ours, theirs = ours.round(1), theirs.round(1)
    # Authors of 10, 10 and 20 questions: the draws differ in length.
    index = np.repeat([0, 1, 2, 2], 10)
    taken = intervals.draw_counts(3, 100, 0, "forget")[:, index]
    taken[0] = 1
    expected = [
        scipy.stats.ks_2samp(np.repeat(ours, row), np.repeat(theirs, row)).pvalue for row in taken
    ]
    actual = intervals.ks_pvalues(ours, theirs, taken)
    assert actual == pytest.approx(expected, rel=1e-9)
    assert actual[0] == pytest.approx(scipy.stats.ks_2samp(ours, theirs).pvalue)


def test_a_draw_of_forget_quality_takes_whole_authors_from_both_models():
    generator = np.random.default_rng(5)
    ours, theirs = generator.normal(size=60), generator.normal(0.4, size=60)
    groups = [f"author/{i // 20}" for i in range(60)]
    numbers = np.random.default_rng([6, zlib.crc32(b"forget")]).integers(3, size=(300, 3))
    drawn = []
    for authors in numbers:
        rows = np.concatenate([np.arange(20 * author, 20 * author + 20) for author in authors])
        drawn.append(scipy.stats.ks_2samp(ours[rows], theirs[rows]).pvalue)
    actual = intervals.forget_quality_interval(ours, theirs, groups, 300, 6)
    assert actual == pytest.approx(np.percentile(drawn, [2.5, 97.5]), rel=1e-9)


def test_equal_models_have_a_forget_quality_of_one_to_one():
    same = np.arange(10.0)
    assert intervals.forget_quality_interval(same, same, list("abcdefghij"), 200, 0) == (1, 1)


def test_the_interval_of_a_small_p_value_is_around_it():
    generator = np.random.default_rng(7)
    ours = generator.normal(size=100)
    theirs = ours * 0.5 + generator.normal(0.8, size=100)
    alone = [str(i) for i in range(100)]
    low, high = intervals.forget_quality_interval(ours, theirs, alone, 1000, 0)
    assert 0 < low < scipy.stats.ks_2samp(ours, theirs).pvalue < high < 1
