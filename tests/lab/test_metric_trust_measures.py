"""How far a metric can be trusted, by hand."""

import pytest
from sklearn.metrics import roc_auc_score

from lab.metric_trust import trust

pytestmark = [pytest.mark.slow, pytest.mark.guard]


def test_faithfulness_is_the_auc_of_knowing_against_ignorant_models():
    knowing, ignorant = [0.9, 0.5, 0.4], [0.5, 0.1]
    expected = roc_auc_score([1, 1, 1, 0, 0], [*knowing, *ignorant])
    assert trust.faithfulness(knowing, ignorant) == pytest.approx(expected)  # (2 + 1.5 + 1) / 6
    assert trust.faithfulness(knowing, ignorant) == pytest.approx(4.5 / 6)


@pytest.mark.parametrize(
    ("rises", "expected"),
    [
        (
            (0.1, 0.5, 0.1, 0.3),
            0.5,
        ),  # 0.2 of the retain model against 0.4: half came back by itself
        ((0.1, 0.2, 0.1, 0.5), 1.0),  # slower than the retain model
        ((0.1, 0.1, 0.1, 0.3), 1.0),  # does not rise
        ((0.1, 0.5, 0.3, 0.3), 0.0),
        ((0.1, 0.1, 0.3, 0.3), None),
    ],
)
def test_relearning_is_measured_by_the_retain_models_rise(rises, expected):
    assert trust.relearning_robustness(*rises) == (
        None if expected is None else pytest.approx(expected)
    )


def test_quantisation_that_brings_knowledge_back_costs_its_share():
    assert trust.quantisation_robustness(0.2, 0.8) == pytest.approx(0.25)
    assert trust.quantisation_robustness(0.8, 0.2) == 1.0
    assert trust.quantisation_robustness(0.2, 0.0) is None


def test_symmetric_forms_count_movement_either_way():
    # changes 0.4 and 0.2: 1 - 0.2 / 0.6; opposite changes: 1 - 0.6 / 0.6
    assert trust.symmetric_relearning(0.1, 0.5, 0.1, 0.3) == pytest.approx(2 / 3)
    assert trust.symmetric_relearning(0.5, 0.1, 0.1, 0.3) == pytest.approx(0)
    assert (
        trust.symmetric_quantisation(0.2, 0.8)
        == pytest.approx(0.4)
        == trust.symmetric_quantisation(0.8, 0.2)
    )
    assert trust.symmetric_relearning(0.1, 0.1, 0.3, 0.3) is None


def test_means_leave_out_what_is_not_there():
    assert trust.mean_of_known([1.0, None, 0.5]) == 0.75
    assert trust.mean_of_known([None]) is None
    assert trust.harmonic_mean(1.0, 0.5) == pytest.approx(2 / 3)
    assert trust.harmonic_mean(0.0, 0.0) == 0.0
    assert trust.harmonic_mean(None, 1.0) is None
