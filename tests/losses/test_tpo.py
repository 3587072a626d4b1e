"""TPO by hand.

Two samples of two predicted tokens each; sample 1 has one unwanted word only (its second token
must not count):

    z      [[1.0, 2.0], [0.5, 3.0]]     mean logit      [[-1, 0], [0.5, 9]]
    z_ref  [[2.0, 4.0], [1.5, 7.0]]     its reference   [[ 0, 1], [0.0, 9]]
    unwanted                            [[1, 1], [1, 0]]

    d, raw logits        sample 0: ((2 - 1) + (4 - 2)) / 2 = 1.5 sample 1: 1.5 - 0.5 = 1.0 mean 1.25
    d, mean subtracted   z - m = [[2, 2], [0, .]], z_ref - m_ref = [[2, 3], [1.5, .]]
                         sample 0: (0 + 1) / 2 = 0.5             sample 1: 1.5             mean 1.0

With beta = 0.5, -(2 / beta) log sigmoid(beta d) = 4 ln(1 + exp(-d / 2)):

    d     0.5            1.0            1.25           1.5            0
    LPL   2.3037576795   1.8963079367   1.7148027131   1.5474840245   4 ln 2

    sample, none: (1.5474840245 + 1.8963079367) / 2 = 1.7218959806      batch, none: 1.7148027131
    sample, mean: (2.3037576795 + 1.5474840245) / 2 = 1.9256208520      batch, mean: 1.8963079367
"""

import math

import pytest
import torch

from tif import losses
from tif.config import load as config
from tif.losses.terms import Inputs
from tif.losses.tpo import LplKeys, lpl, preservation_loss, unwanted_word_changes
from tif.scoring.token_scores import TokenScores

LN2 = math.log(2)
UW = torch.tensor([[1, 1], [1, 0]]).bool()
NONE = torch.zeros(2, 2, dtype=torch.bool)


def logit_preference_loss(policy, reference, weight, beta, baseline="none", reduction="sample"):
    return lpl.value(Inputs(policy, weight, reference), LplKeys(beta, baseline, reduction))


def scores(logit, logprob=None, mean_logit=None):
    rows = [
        logit,
        logprob or [[0.0] * len(r) for r in logit],
        mean_logit or [[0.0] * len(r) for r in logit],
    ]
    return TokenScores(*(torch.tensor(r) for r in rows))


POLICY = scores([[1.0, 2.0], [0.5, 3.0]], [[-1.0, -2.0], [-3.0, -0.5]], [[-1.0, 0.0], [0.5, 9.0]])
REFERENCE = scores([[2.0, 4.0], [1.5, 7.0]], [[-0.5, -1.0], [-1.0, -9.0]], [[0.0, 1.0], [0.0, 9.0]])


@pytest.mark.parametrize(
    ("reduction", "baseline", "expected"),
    [
        ("sample", "none", 1.7218959806),
        ("sample", "mean", 1.9256208520),
        ("batch", "none", 1.7148027131),
        ("batch", "mean", 1.8963079367),
    ],
)
def test_lpl_equals_the_hand_computed_two_token_case(reduction, baseline, expected):
    actual = logit_preference_loss(POLICY, REFERENCE, UW, 0.5, baseline, reduction)
    assert actual.shape == ()
    assert actual.item() == pytest.approx(expected)


def test_tokens_that_are_less_likely_than_lpl_stop_are_lowered_no_further():
    # probabilities e^-1, e^-2 and e^-3: the last two are below 0.2
    gradients = []
    for stop in (0.0, 0.2):
        z = torch.tensor([[1.0, 2.0], [0.5, 3.0]], requires_grad=True)
        policy = TokenScores(z, POLICY.logprob, POLICY.mean_logit)
        value = lpl.value(Inputs(policy, UW, REFERENCE), LplKeys(0.5, lpl_stop=stop))
        assert value.item() == pytest.approx(1.7218959806)
        value.backward()
        gradients.append(z.grad)
    assert (gradients[0][UW] > 0).all()
    assert gradients[1].tolist() == [[gradients[0][0, 0].item(), 0], [0, 0]]


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("baseline", ["none", "mean"])
@pytest.mark.parametrize("pl_reduction", ["sum", "mean"])
def test_lpl_and_pl_equal_their_formulas_on_random_logits_one_number_at_a_time(
    reduction, baseline, pl_reduction
):
    generator = torch.Generator().manual_seed(1)
    z, z_ref = torch.randn(2, 4, 6, 11, generator=generator) * 2
    y, label = (
        torch.randint(11, (4, 6), generator=generator),
        torch.randint(3, (4, 6), generator=generator),
    )
    label[1] = 0  # 0 = neither, 1 = unwanted, 2 = general

    def of(logits):
        pick = [t.gather(2, y[..., None])[..., 0] for t in (logits, logits.log_softmax(2))]
        return TokenScores(*pick, logits.mean(2))

    differences, likelihoods = {}, {i: [] for i in range(4)}
    for i in range(4):
        for t in range(6):
            now, then, token = z[i, t].tolist(), z_ref[i, t].tolist(), int(y[i, t])
            if label[i, t] == 1:
                shift = (sum(then) - sum(now)) / 11 if baseline == "mean" else 0.0
                differences.setdefault(i, []).append(then[token] - now[token] - shift)
            if label[i, t] == 2:
                likelihoods[i].append(math.log(sum(math.exp(v) for v in now)) - now[token])
    d = [sum(values) / len(values) for values in differences.values()]
    d = [sum(d) / len(d)] if reduction == "batch" else d
    lpl = [-2 / 0.4 * math.log(1 / (1 + math.exp(-0.4 * x))) for x in d]
    pl = [
        sum(values) / (len(values) or 1) if pl_reduction == "mean" else sum(values)
        for values in likelihoods.values()
    ]
    actual = logit_preference_loss(of(z), of(z_ref), label == 1, 0.4, baseline, reduction)
    assert actual.item() == pytest.approx(sum(lpl) / (1 if reduction == "batch" else 4), rel=1e-5)
    assert preservation_loss(of(z), label == 2, pl_reduction).item() == pytest.approx(
        sum(pl) / 4, rel=1e-5
    )


def test_lpl_by_default_averages_raw_logits_over_samples():
    assert logit_preference_loss(POLICY, REFERENCE, UW, 0.5).item() == pytest.approx(1.7218959806)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum", 2.75),  # sample 0: 2, sample 1: 3 + 0.5; (2 + 3.5) / 2
        ("mean", 1.875),  # sample 0: 2, sample 1: 3.5 / 2; (2 + 1.75) / 2
    ],
)
def test_pl_equals_the_hand_computed_two_token_case(reduction, expected):
    gw = torch.tensor([[0, 1], [1, 1]]).bool()
    assert preservation_loss(POLICY, gw, reduction).item() == pytest.approx(expected)


def test_pl_by_default_sums_over_a_samples_tokens():
    assert preservation_loss(POLICY, torch.tensor([[0, 1], [1, 1]]).bool()).item() == pytest.approx(
        2.75
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_sample_without_general_words_adds_nothing_to_pl(reduction):
    gw = torch.tensor([[0, 0], [0, 1]]).bool()
    assert preservation_loss(POLICY, gw, reduction).item() == pytest.approx(0.5 / 2)
    assert preservation_loss(POLICY, NONE, reduction).item() == 0


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("baseline", ["none", "mean"])
@pytest.mark.parametrize("beta", [0.1, 0.3, 2.0])
def test_lpl_is_2_ln_2_over_beta_where_policy_and_reference_agree(beta, baseline, reduction):
    actual = logit_preference_loss(POLICY, POLICY, UW, beta, baseline, reduction)
    assert actual.item() == pytest.approx(2 * LN2 / beta)


def test_lpl_falls_as_the_unwanted_logit_falls_and_saturates_sooner_with_a_larger_beta():
    def lpl(z, beta):
        return logit_preference_loss(
            scores([[z]]), scores([[0.0]]), torch.tensor([[True]]), beta
        ).item()

    assert lpl(5.0, 0.3) > lpl(0.0, 0.3) > lpl(-5.0, 0.3) > lpl(-50.0, 0.3) >= 0
    # far above the reference the slope is 2 whatever beta is; far below it is 0
    assert lpl(101.0, 2.0) - lpl(100.0, 2.0) == pytest.approx(2, rel=1e-4)
    assert lpl(-10.0, 2.0) / lpl(0.0, 2.0) < 1e-6 < lpl(-10.0, 0.1) / lpl(0.0, 0.1)


def test_the_mean_baseline_does_not_see_a_shift_of_all_logits_and_the_raw_form_does():
    shifted = TokenScores(POLICY.logit - 7, POLICY.logprob, POLICY.mean_logit - 7)
    mean, raw = (
        [logit_preference_loss(p, REFERENCE, UW, 0.5, b) for p in (POLICY, shifted)]
        for b in ("mean", "none")
    )
    assert mean[1].item() == pytest.approx(mean[0].item())
    assert raw[1].item() < raw[0].item() / 5


def grads(mask, baseline, reduction):
    logit, mean = POLICY.logit.clone().requires_grad_(), POLICY.mean_logit.clone().requires_grad_()
    loss = logit_preference_loss(
        TokenScores(logit, POLICY.logprob, mean), REFERENCE, mask, 0.5, baseline, reduction
    )
    loss.backward()
    return loss.item(), logit.grad, mean.grad


def test_a_sample_without_unwanted_words_adds_0_to_lpl_and_no_gradient():
    first = torch.tensor([[1, 1], [0, 0]]).bool()
    loss, logit, _ = grads(first, "none", "sample")
    assert loss == pytest.approx(1.5474840245 / 2)  # not (1.547 + 4 ln 2) / 2
    # d LPL / d z = 2 (1 - sigmoid(beta d)) / |U| / B = 2 * 0.3208213 / 2 / 2, beta d = 0.75
    torch.testing.assert_close(logit, torch.tensor([[0.1604107, 0.1604107], [0.0, 0.0]]))


def test_a_sample_without_unwanted_words_is_left_out_of_the_batch_mean():
    loss, logit, _ = grads(torch.tensor([[1, 1], [0, 0]]).bool(), "none", "batch")
    assert loss == pytest.approx(1.5474840245)  # d of the batch is 1.5, not 0.75
    torch.testing.assert_close(logit, torch.tensor([[0.3208213, 0.3208213], [0.0, 0.0]]))


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_a_batch_without_any_unwanted_word_has_lpl_0_and_zero_gradients(baseline, reduction):
    loss, logit, mean = grads(NONE, baseline, reduction)
    assert loss == 0
    assert (logit == 0).all()
    assert mean is None or (mean == 0).all()
    assert {v.item() for v in unwanted_word_changes(POLICY, REFERENCE, NONE).values()} == {0.0}


@pytest.mark.parametrize("reduction", ["sample", "batch"])
@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_lpl_gradients_are_right(baseline, reduction):
    generator = torch.Generator().manual_seed(0)
    logit, mean, ref, ref_mean = (
        torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    mask = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]]).bool()

    def loss(logit, mean):
        reference = TokenScores(ref, ref, ref_mean)
        return logit_preference_loss(
            TokenScores(logit, logit, mean), reference, mask, 0.3, baseline, reduction
        )

    assert torch.autograd.gradcheck(loss, (logit.requires_grad_(), mean.requires_grad_()))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_pl_gradients_are_right(reduction):
    logprob = torch.randn(
        3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    assert torch.autograd.gradcheck(
        lambda p: preservation_loss(TokenScores(p, p, p), mask, reduction), (logprob,)
    )


def test_no_gradient_reaches_the_log_probability_through_lpl():
    policy = TokenScores(
        *(t.clone().requires_grad_() for t in (POLICY.logit, POLICY.logprob, POLICY.mean_logit))
    )
    logit_preference_loss(policy, REFERENCE, UW, 0.5, "mean").backward()
    assert policy.logprob.grad is None
    torch.testing.assert_close(policy.mean_logit.grad, -policy.logit.grad)


@pytest.mark.parametrize("reduction", ["sample", "batch"])
def test_padding_and_the_order_of_a_batch_change_nothing(reduction):
    def lpl(order, columns):
        pad = torch.full((2, columns), 99.0)
        policy, reference = (
            TokenScores(
                *(torch.cat([t[order], pad * k], 1) for t in (s.logit, s.logprob, s.mean_logit))
            )
            for s, k in ((POLICY, 1), (REFERENCE, 2))
        )
        mask = torch.cat([UW[order], torch.zeros(2, columns, dtype=torch.bool)], 1)
        gw = torch.cat([~UW[order], torch.zeros(2, columns, dtype=torch.bool)], 1)
        parts = (
            logit_preference_loss(policy, reference, mask, 0.5, "mean", reduction),
            preservation_loss(policy, gw),
        )
        return [p.item() for p in parts]

    expected = lpl([0, 1], 0)
    assert lpl([1, 0], 0) == pytest.approx(expected)
    assert lpl([0, 1], 3) == pytest.approx(expected)


def test_the_sample_reduction_of_a_batch_is_the_mean_of_its_samples():
    def lpl(row):
        policy, reference = (
            TokenScores(s.logit[row], s.logprob[row], s.mean_logit[row])
            for s in (POLICY, REFERENCE)
        )
        return logit_preference_loss(policy, reference, UW[row], 0.5, "none", "sample").item()

    assert lpl(slice(0, 2)) == pytest.approx((lpl(slice(0, 1)) + lpl(slice(1, 2))) / 2)


def test_changes_of_unwanted_words_are_policy_minus_reference_over_all_their_tokens():
    # logits: (1 - 2) + (2 - 4) + (0.5 - 1.5) = -4 over 3 tokens; log-probs: -0.5 - 1 - 2 = -3.5;
    # mean logits: -1 - 1 + 0.5 = -1.5
    actual = {k: v.item() for k, v in unwanted_word_changes(POLICY, REFERENCE, UW).items()}
    expected = {
        "uw_logit_change": -4 / 3,
        "uw_logprob_change": -3.5 / 3,
        "uw_mean_logit_change": -0.5,
    }
    assert actual == pytest.approx(expected)


def test_changes_of_unwanted_words_carry_no_gradient():
    policy = TokenScores(
        *(t.clone().requires_grad_() for t in (POLICY.logit, POLICY.logprob, POLICY.mean_logit))
    )
    assert not any(v.requires_grad for v in unwanted_word_changes(policy, REFERENCE, UW).values())


# --- one log-sigmoid for each micro-batch, as released

# d of seven samples: of sample i one unwanted word with z_ref - z = D[i]; the fourth has none
D = [1.5, -0.5, 4.0, None, 2.0, 0.25, -3.0]


def lpl_of_groups(size, samples=None):
    z = torch.tensor([[-(d or 0.0)] for d in D])
    weight = torch.tensor([[float(d is not None)] for d in D])
    policy, reference = scores(z.tolist()), scores([[0.0]] * len(D))
    inputs = Inputs(policy, weight, reference, samples=samples, micro_batch=size)
    return lpl.value(inputs, LplKeys(0.32, "none", "batch")).item()


@pytest.mark.parametrize(
    ("size", "groups"),
    [
        # the mean of each four, without the sample that has no unwanted word; then the rest
        (4, [(4, (1.5 - 0.5 + 4.0) / 3), (3, (2.0 + 0.25 - 3.0) / 3)]),
        (3, [(3, 5.0 / 3), (3, 2.25 / 2), (1, -3.0)]),
        (2, [(2, 0.5), (2, 4.0), (2, 1.125), (1, -3.0)]),
        (100, [(7, 4.25 / 6)]),
    ],
)
def test_a_released_step_has_one_log_sigmoid_for_each_micro_batch(size, groups):
    expected = 0.0
    for samples, mean_d in groups:
        expected += samples / 7 * -2 / 0.32 * math.log(1 / (1 + math.exp(-0.32 * mean_d)))
    assert lpl_of_groups(size) == pytest.approx(expected)
    # as a part of a batch of 14 samples it is half as much
    assert lpl_of_groups(size, samples=14) == pytest.approx(expected / 2)


def test_micro_batches_of_one_are_the_reduction_by_samples():
    z = torch.tensor([[-(d or 0.0)] for d in D])
    weight = torch.tensor([[float(d is not None)] for d in D])
    inputs = Inputs(scores(z.tolist()), weight, scores([[0.0]] * len(D)))
    expected = lpl.value(inputs, LplKeys(0.32, "none", "sample")).item()
    assert lpl_of_groups(1) == pytest.approx(expected)


def test_the_released_method_is_the_releases():
    cfg = config.load(["quickstart.yaml", "loss/tpo_released.yaml"])
    assert (cfg.loss.lpl_reduction, cfg.loss.micro_batch) == ("batch", 4)
    assert cfg.trainer.gradient_clip_val is None
    assert losses.group_size(cfg.loss) == 4
    assert losses.group_size(config.load(["quickstart.yaml", "loss/tpo.yaml"]).loss) == 1
