"""The term `guess`: by hand, against finite differences, at its limit."""

import math

import pytest
import torch

from tif.losses import FORGET, make_loss
from tif.losses.guess import make_guess
from tif.scoring.token_scores import Outputs

LN = math.log
DRAWS = torch.Generator().manual_seed(5)
LOGITS = torch.randn(6, 9, generator=DRAWS) * 3
OTHER = torch.randn(6, 9, generator=DRAWS) * 3
TRUE = torch.tensor([0, 3, 8, 2, 2, 5])


def value(policy: torch.Tensor, original: torch.Tensor, targets: torch.Tensor, **keys: float):
    term = FORGET["guess"].per_token(make_loss(**keys))
    return term.value(Outputs(policy, targets), Outputs(original, targets))


def test_the_true_token_gets_the_guess_and_the_others_the_rest_in_proportion():
    # 0.6, 0.3, 0.1 with the first at most 0.2: the others share 0.8 as 3 to 1
    log_q = make_guess(torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([0]), 0.2)
    assert log_q.exp()[0].tolist() == pytest.approx([0.2, 0.6, 0.2])


def test_a_token_that_is_no_likelier_than_a_guess_stays_as_it_is():
    log_q = make_guess(LOGITS, TRUE, 1.0)
    torch.testing.assert_close(log_q, LOGITS.log_softmax(1))


@pytest.mark.parametrize(("pull", "expected"), [(0.0, 0.0), (2.0, 2 * LN(0.5 / 0.2))])
def test_a_tokens_value_equals_the_hand_computed_case(pull, expected):
    # q = 0.2, 0.6, 0.2; p = 0.5, 0.25, 0.25
    by_hand = 0.2 * LN(0.2 / 0.5) + 0.6 * LN(0.6 / 0.25) + 0.2 * LN(0.2 / 0.25)
    policy, original = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.6, 0.3, 0.1]])
    actual = value(policy.log(), original.log(), torch.tensor([0]), guess=0.2, guess_pull=pull)
    assert actual.tolist() == pytest.approx([by_hand + expected])


def test_it_is_nothing_where_the_policy_guesses_and_nowhere_less():
    reached = make_guess(OTHER, TRUE, 0.01)
    keys = {"guess": 0.01, "guess_pull": 0.5}
    torch.testing.assert_close(value(reached, OTHER, TRUE, **keys), torch.zeros(6))
    assert (value(LOGITS, OTHER, TRUE, **keys) > 0).all()


def test_a_constant_on_all_logits_changes_nothing():
    keys = {"guess": 0.01, "guess_pull": 0.5}
    moved = value(LOGITS + 7, OTHER - 3, TRUE, **keys)
    torch.testing.assert_close(moved, value(LOGITS, OTHER, TRUE, **keys), rtol=1e-4, atol=1e-5)


def test_its_gradient_is_that_of_finite_differences_and_goes_to_the_policy_alone():
    policy, original = LOGITS.double().requires_grad_(), OTHER.double()
    keys = {"guess": 0.01, "guess_pull": 0.5}
    assert torch.autograd.gradcheck(lambda z: value(z, original, TRUE, **keys), (policy,))


def test_a_token_of_which_the_original_is_certain_has_a_finite_value_and_gradient():
    policy = torch.zeros(1, 4, requires_grad=True)
    total = value(policy, torch.tensor([[200.0, 0.0, 0.0, 0.0]]), torch.tensor([0]), guess=0.02)
    total.sum().backward()
    assert torch.isfinite(total).all()
    assert torch.isfinite(policy.grad).all()
