"""Terms of token scores by hand, against plain transcriptions of their formulas; gradients.

Two samples, the first with two counted tokens, the second with one:

    log p       [[-1, -2], [-3, .]]      S     = [3, 3]       S / n = [1.5, 3]
    its original[[-0.5, -1], [-1, .]]    S_ref = [1.5, 1]     S - S_ref = [1.5, 2]
    refusals    [[-4, -1], [-2, -2]]     R     = [5, 4]
    originally  [[-5, -2], [-2, -3]]     R_ref = [7, 5]       R - R_ref = [-2, -1]
"""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from tif.losses import FORGET, make_loss
from tif.losses.terms import Inputs
from tif.scoring.token_scores import TokenScores

MASK = torch.tensor([[1, 1], [1, 0]]).bool()
ALL = torch.ones(2, 2).bool()
TERMS = ("npo", "simnpo", "ga", "wga", "satimp", "idk", "dpo", "kto")


def scores(logprob):
    return TokenScores(*(torch.as_tensor(logprob),) * 3)


def inputs(policy, original, refusal, refusal_original, mask=MASK, refusal_mask=ALL):
    alternate = Inputs(scores(refusal), refusal_mask, scores(refusal_original))
    return Inputs(scores(policy), mask, scores(original), alternate=alternate)


HAND = inputs(
    [[-1.0, -2.0], [-3.0, -0.5]], [[-0.5, -1.0], [-1.0, -9.0]],
    [[-4.0, -1.0], [-2.0, -2.0]], [[-5.0, -2.0], [-2.0, -3.0]],
)  # fmt: skip


def softplus(x):
    return math.log(1 + math.exp(x))  # -log sigmoid(-x)


def p(x, power):
    return math.exp(-x) ** power


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("npo", {"beta": 0.5}, (4 * softplus(-0.75) + 4 * softplus(-1)) / 2),
        ("simnpo", {"beta": 0.5, "gamma": 0.5}, (4 * softplus(-0.5) + 4 * softplus(-1.25)) / 2),
        ("ga", {}, -(1 + 2 + 3) / 3),
        ("wga", {"beta": 2.0}, -(p(1, 2) * 1 + p(2, 2) * 2 + p(3, 2) * 3) / 3),
        (
            "satimp",
            {"beta": 2.0, "beta2": 0.5},
            -sum(p(x, 2) * (1 - math.exp(-x)) ** 0.5 * x for x in (1, 2, 3)) / 3,
        ),
        ("idk", {}, (4 + 1 + 2 + 2) / 4),
        # S - S_ref - (R - R_ref) = [3.5, 3]
        ("dpo", {"beta": 0.5}, (4 * softplus(-1.75) + 4 * softplus(-1.5)) / 2),
        # k = mean(2, 1) = 1.5; k + beta (S - S_ref) = [2.25, 2.5]
        ("kto", {"beta": 0.5}, 1 + (4 * softplus(-2.25) + 4 * softplus(-2.5)) / 2),
    ],
)
def test_a_term_equals_the_hand_computed_case(name, keys, expected):
    actual = FORGET[name](HAND, make_loss(**keys))
    assert actual.shape == ()
    assert actual.item() == pytest.approx(expected, rel=1e-5)


def test_ktos_point_is_the_mean_of_each_micro_batch():
    # k of sample 0 is 2, of sample 1 it is 1; beta (S - S_ref) = [0.75, 1]
    alone = dataclasses.replace(HAND, micro_batch=1)
    expected = 1 + (4 * softplus(-2.75) + 4 * softplus(-2)) / 2
    assert FORGET["kto"](alone, make_loss(beta=0.5)).item() == pytest.approx(expected, rel=1e-5)


def plain(name, cfg, x):
    """Sample by sample, token by token, from the formulas."""

    def row_sum(s, mask, i):
        return sum((s.logprob[i, t] for t in range(mask.shape[1]) if mask[i, t]), torch.zeros(()))

    tokens = [x.policy.logprob[i, t] for i, t in x.weight.nonzero().tolist()]
    samples = [i for i in range(len(x.weight)) if x.weight[i].any()]
    ratio = {
        i: row_sum(x.policy, x.weight, i) - row_sum(x.reference, x.weight, i)
        for i in range(len(x.weight))
    }
    a = x.alternate
    refusal = {
        i: row_sum(a.policy, a.weight, i) - row_sum(a.reference, a.weight, i)
        for i in range(len(x.weight))
    }
    b, size = cfg.beta, len(x.weight)
    if name == "idk":
        refused = [a.policy.logprob[i, t] for i, t in a.weight.nonzero().tolist()]
        return -sum(refused) / len(refused)
    if name in ("ga", "wga", "satimp"):
        power = {"ga": (0, 0), "wga": (b, 0), "satimp": (b, cfg.beta2)}[name]
        weighed = [
            t.detach().exp() ** power[0] * (1 - t.detach().exp()) ** power[1] * t for t in tokens
        ]
        return sum(weighed) / len(weighed)
    if name == "simnpo":
        each = [-row_sum(x.policy, x.weight, i) / x.weight[i].sum() - cfg.gamma for i in samples]
        return sum(-2 / b * logsigmoid(b * e) for e in each) / size
    if name == "npo":
        return sum(-2 / b * logsigmoid(-b * ratio[i]) for i in samples) / size
    if name == "dpo":
        return sum(-2 / b * logsigmoid(b * (refusal[i] - ratio[i])) for i in samples) / size
    k = sum(refusal.values()).detach() / size
    return sum(1 - 2 / b * logsigmoid(k - b * ratio[i]) for i in samples) / size


def draws(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    rows = [-3 * torch.rand(4, 6, generator=generator, dtype=dtype) - 0.01 for _ in range(4)]
    mask = torch.rand(4, 6, generator=generator) < 0.5
    mask[2] = False  # a sample with nothing to forget
    return rows, mask, torch.rand(4, 6, generator=generator) < 0.7


@pytest.mark.parametrize("name", TERMS)
def test_a_term_equals_the_plain_transcription_of_its_formula(name):
    rows, mask, refusal_mask = draws()
    cfg, x = make_loss(beta=0.7, beta2=1.5, gamma=0.2), inputs(*rows, mask, refusal_mask)
    torch.testing.assert_close(FORGET[name](x, cfg), plain(name, cfg, x))


# wga, satimp and kto have weights without gradient, so the true gradient is another one: next test.
@pytest.mark.parametrize("name", ["npo", "simnpo", "ga", "idk", "dpo"])
def test_the_gradients_of_a_term_are_right(name):
    (policy, original, refusal, refusal_original), mask, refusal_mask = draws(torch.float64)

    def loss(policy, refusal):
        x = inputs(policy, original, refusal, refusal_original, mask, refusal_mask)
        return FORGET[name](x, make_loss(beta=0.7))

    assert torch.autograd.gradcheck(loss, (policy.requires_grad_(), refusal.requires_grad_()))


@pytest.mark.parametrize("name", ["wga", "satimp", "kto"])
def test_the_gradients_of_a_weighed_term_are_those_with_fixed_weights(name):
    (policy, *others), mask, refusal_mask = draws(torch.float64)
    cfg, policy = make_loss(beta=0.7, beta2=1.5), policy.requires_grad_()
    actual, expected = (
        torch.autograd.grad(f(inputs(policy, *others, mask, refusal_mask), cfg), policy)[0]
        for f in (FORGET[name], lambda x, c: plain(name, c, x))
    )
    torch.testing.assert_close(actual, expected)
    assert (actual[~mask] == 0).all()


def test_kto_sends_no_gradient_to_refusals_and_dpo_does():
    rows, mask, refusal_mask = draws()
    rows[0].requires_grad_()
    rows[2].requires_grad_()
    for name, reached in (("kto", False), ("dpo", True)):
        loss = FORGET[name](inputs(*rows, mask, refusal_mask), make_loss())
        grad = torch.autograd.grad(loss, rows[2], allow_unused=True)[0]
        assert (grad is not None) is reached


@pytest.mark.parametrize("name", TERMS)
def test_padding_and_the_order_of_a_batch_change_nothing(name):
    rows, mask, refusal_mask = draws()
    cfg, order = make_loss(beta=0.7), [3, 1, 0, 2]

    def padded(t, fill):
        return torch.cat([t[order], torch.full((4, 3), fill).to(t.dtype)], 1)

    garbage = [padded(r, -5.0 * k) for k, r in enumerate(rows, 1)]
    other = inputs(*garbage, padded(mask, 0), padded(refusal_mask, 0))
    torch.testing.assert_close(
        FORGET[name](other, cfg), FORGET[name](inputs(*rows, mask, refusal_mask), cfg)
    )


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"idk"}))
def test_an_empty_mask_gives_0_and_no_gradient(name):
    rows, mask, refusal_mask = draws()
    rows[0].requires_grad_()
    loss = FORGET[name](inputs(*rows, torch.zeros_like(mask), refusal_mask), make_loss())
    loss.backward()
    assert loss.item() == 0
    assert (rows[0].grad == 0).all()


@pytest.mark.parametrize("name", TERMS)
def test_lower_is_where_the_answer_is_less_likely_or_the_refusal_likelier(name):
    rows, mask, refusal_mask = draws()
    before = FORGET[name](inputs(*rows, mask, refusal_mask), make_loss(beta=0.5))
    # wga and satimp are not monotone: below p = exp(-1 / beta) they push no further
    rows[0] = rows[0] - 0.01 if name not in ("wga", "satimp") else (rows[0] * 0 - 0.3)
    if name in ("wga", "satimp"):
        before = FORGET[name](
            inputs(rows[0] + 0.1, *rows[1:], mask, refusal_mask), make_loss(beta=0.5, beta2=0.0)
        )
        assert (
            FORGET[name](inputs(*rows, mask, refusal_mask), make_loss(beta=0.5, beta2=0.0)) < before
        )
        return
    if name == "idk":
        rows[2] = rows[2] + 0.005
    assert FORGET[name](inputs(*rows, mask, refusal_mask), make_loss(beta=0.5)) < before


def test_tnpos_weights_are_those_of_the_hand_computed_case_and_carry_no_gradient():
    def w(x, start, power):  # of log-probabilities -x and -start, beta 2
        return 2 * p(x, 2 + power) / (p(x, 2) + p(start, 2))

    for power in (0.0, 1.5):
        weights = [w(1, 0.5, power), w(2, 1, power), w(3, 1, power)]
        moved = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]], requires_grad=True)
        x = dataclasses.replace(HAND, policy=scores(moved))
        value = FORGET["tnpo"](x, make_loss(beta=2.0, power=power))
        by_hand = -(weights[0] * 1 + weights[1] * 2 + weights[2] * 3) / 3
        assert value.item() == pytest.approx(by_hand)
        value.backward()
        expected = [[weights[0] / 3, weights[1] / 3], [weights[2] / 3, 0.0]]
        torch.testing.assert_close(moved.grad, torch.tensor(expected))


def test_a_token_that_was_and_is_impossible_has_a_finite_weight_in_tnpo():
    impossible = scores([[-300.0, -300.0], [-300.0, -300.0]])
    x = dataclasses.replace(HAND, policy=impossible, reference=impossible)
    assert FORGET["tnpo"](x, make_loss(beta=4.0)).item() == pytest.approx(-300.0)


def test_gap_is_least_where_the_answer_is_as_likely_as_wanted_beside_the_alternate():
    # mean log p of the answers -1.5, -3; of the alternates -2.5, -2: gaps 1, -1
    assert FORGET["gap"](HAND, make_loss(gap=0.0)).item() == pytest.approx(1.0)
    assert FORGET["gap"](HAND, make_loss(gap=1.0)).item() == pytest.approx((0 + 4) / 2)


def test_etws_weights_are_entropies_over_their_mean_in_the_sample():
    # first sample: H = 1, 3, weights 1/2, 3/2; second: one token, weight 1
    x = dataclasses.replace(HAND, token_values=torch.tensor([[1.0, 3.0], [0.7, 9.0]]))
    expected = ((0.5 * -1 + 1.5 * -2) / 2 - 3) / 2
    assert FORGET["etw"](x, make_loss()).item() == pytest.approx(expected)
    sure = dataclasses.replace(HAND, token_values=torch.zeros(2, 2))  # no entropy: nothing to raise
    assert FORGET["etw"](sure, make_loss()).item() == 0
