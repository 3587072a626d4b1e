"""Attack scores by hand; AUC against scikit-learn; its interval against DeLong."""

import dataclasses
import math
import zlib

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.metrics import roc_auc_score

from tif.metrics import membership
from tif.metrics.registry import metrics_reading
from tif.metrics.values import ScoredText

LOGPROBS = (-1.0, -4.0, -0.5, -2.0, -2.5)
TEXT = ScoredText("ab", LOGPROBS, (-2,) * 5, (1,) * 5)


def test_loss_is_the_mean_negative_log_probability():
    assert membership.loss(TEXT) == 2.0  # (1 + 4 + 0.5 + 2 + 2.5) / 5


def test_zlib_divides_by_the_compressed_bytes_of_the_text():
    text = "naïve " * 20
    size = len(zlib.compress(text.encode("utf-8")))
    assert membership.zlib_ratio(ScoredText(text, LOGPROBS)) == 2.0 / size
    assert size < len(text)  # or the divisor would say nothing


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.4, 3.25),  # int(5 * 0.4) = 2 tokens: (4 + 2.5) / 2
        (0.59, 3.25),  # int(2.95) = 2: rounded down
        (0.6, 8.5 / 3),  # 3 tokens: (4 + 2.5 + 2) / 3
        (0.1, 4.0),  # int(0.5) = 0, and one token at least
        (1.0, 2.0),  # all of them: the loss
    ],
)
def test_min_k_is_the_mean_over_the_least_likely_tokens(share, expected):
    assert membership.min_k(TEXT, share) == pytest.approx(expected, rel=1e-12)


def min_k_plus_plus(*columns):
    return membership.min_k_plus_plus(ScoredText("", *columns))


def test_min_k_plus_plus_measures_each_token_in_its_own_standard_deviations():
    # z = (log p - mu) / sigma: (-1 + 2) / 1 = 1, (-4 + 2) / 4 = -0.5, (-0.5 + 1) / 0.5 = 1, (-2 +
    # 1) / 0.5 = -2, (-2.5 + 1) / 3 = -0.5. The two lowest of five: -2 and -0.5.
    means, deviations = (-2, -2, -1, -1, -1), (1, 4, 0.5, 0.5, 3)
    assert min_k_plus_plus(LOGPROBS, means, deviations) == 1.25


def test_min_k_plus_plus_of_a_distribution_written_out():
    # p = (1/2, 1/4, 1/4): mu = -(1/2 ln 2 + 1/2 ln 4) = -1.5 ln 2, the variance is (0.5 ln 2)^2.
    mu, sigma = -1.5 * math.log(2), 0.5 * math.log(2)
    assert min_k_plus_plus([math.log(0.25)], [mu], [sigma]) == pytest.approx(1.0, rel=1e-12)
    assert min_k_plus_plus([math.log(0.5)], [mu], [sigma]) == pytest.approx(-1.0, rel=1e-12)


def test_min_k_plus_plus_of_a_certain_token_is_finite():
    # A distribution without spread has sigma 0, which counts as 0.001.
    assert min_k_plus_plus([-0.002], [0.0], [0.0]) == pytest.approx(2.0, rel=1e-12)


def test_reference_is_the_difference_of_losses():
    text = ScoredText("", LOGPROBS, reference_logprobs=(-1.0, -2.0))
    assert membership.reference(text) == 0.5


def test_auc_counts_pairs_and_half_of_the_equal_ones():
    # Forget 1, 3; holdout 2, 3, 4. Pairs won: 1 against all three; 3 against 4; equal: 3 and 3. (3
    # + 1 + 0.5) / 6.
    assert membership.auc([1, 3], [2, 3, 4]) == 0.75


def test_auc_is_one_where_every_forget_text_is_better_known_and_scikit_learns_in_between():
    assert membership.auc([1, 2], [3, 4]) == 1
    assert membership.auc([3, 4], [1, 2]) == 0
    rng = np.random.default_rng(0)
    forget, holdout = rng.normal(0, 1, 30).round(1), rng.normal(0.5, 1, 40).round(1)
    expected = roc_auc_score([1] * 30 + [0] * 40, [*-forget, *-holdout])
    assert membership.auc(forget, holdout) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_an_auc_is_delongs_on_the_logit_scale():
    rng = np.random.default_rng(1)
    forget, holdout = rng.normal(0, 1, 30), rng.normal(0.7, 1, 40)
    placed = [np.mean(score < holdout) for score in forget]
    reached = [np.mean(forget < score) for score in holdout]
    parts = np.var(placed, ddof=1) / 30, np.var(reached, ddof=1) / 40
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 29 + parts[1] ** 2 / 39)
    auc = membership.auc(forget, holdout)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)) / (auc * (1 - auc))
    expected = scipy.special.expit(scipy.special.logit(auc) + np.array([-half, half]))
    alone = [str(i) for i in range(40)]
    actual = membership.auc_interval(forget, holdout, (alone[:30], alone))
    assert actual == pytest.approx(tuple(expected), rel=1e-9)


def test_texts_of_one_author_count_together_in_the_interval_of_an_auc():
    forget, holdout = np.repeat([0.0, 2.0, 1.0, 0.5], 10), np.linspace(0.1, 3, 40)
    authors = [f"author/{i // 10}" for i in range(40)]
    alone = [str(i) for i in range(40)]
    narrow = membership.auc_interval(forget, holdout, (alone, alone))
    wide = membership.auc_interval(forget, holdout, (authors, alone))
    assert wide[0] < narrow[0] - 0.1
    assert wide[1] > narrow[1] + 0.05
    # All pairs won by three texts: as three successes of three, exactly.
    low, high = membership.auc_interval([1, 2, 0], [3, 4, 5], (alone[:3], alone[:3]))
    assert (low, high) == pytest.approx((0.025 ** (1 / 3), 1))


@pytest.mark.parametrize(
    ("forget", "holdout", "message"),
    [
        ([], [1], "there are no forget texts"),
        ([1], [], "there are no holdout texts"),
        ([1, math.nan], [1], "1 of 2 forget scores are not finite"),
    ],
)
def test_an_auc_of_nothing_or_of_broken_scores_is_refused(forget, holdout, message):
    with pytest.raises(ValueError, match=message):
        membership.auc(forget, holdout)


def test_a_text_without_scored_tokens_is_refused():
    with pytest.raises(ValueError, match="no scored token"):
        membership.min_k(ScoredText("", ()))


def test_only_attacks_whose_numbers_are_there_have_a_score():
    full = dataclasses.replace(TEXT, reference_logprobs=(-1.0,), gradient_norm=4.0)
    attacks = {key: metric.function for key, metric in metrics_reading("scored text").items()}
    scores = {name: attack(full) for name, attack in attacks.items()}
    assert None not in scores.values()
    assert (scores["reference"], scores["gradient_norm"]) == (1.0, 4.0)
    missing = {name for name, attack in attacks.items() if attack(TEXT) is None}
    assert missing == {"reference", "gradient_norm"}
