"""The table of coverage in docs/evaluation.md: its columns in two lines that simulate fast."""

import pytest

from lab.interval_coverage import measure_coverage


def test_questions_of_an_author_are_not_independent_and_a_bootstrap_over_them_is_too_narrow():
    over_questions, over_authors, ours, width = measure_coverage((20, 20, 0.5, 0.3), 300)
    assert over_questions < 0.65
    assert over_authors > 0.9
    assert 0.92 < ours < 0.99
    # 20 authors whose shares have variance 0.25 * 0.3, and 0.25 * 0.7 / 20 of their answers.
    error = ((0.25 * 0.3 + 0.25 * 0.7 / 20) / 20) ** 0.5
    assert width == pytest.approx(2 * 2.09 * error, rel=0.05)


def test_a_rare_event_in_forty_questions_is_covered():
    over_questions, _, ours, _ = measure_coverage((40, 1, 0.05, 0.0), 300)
    assert over_questions < 0.9
    assert ours > 0.92
