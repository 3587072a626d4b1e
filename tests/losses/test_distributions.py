"""Terms of distributions and hidden states: by hand, against plain transcriptions, in chunks."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch

from tests.support import tiny_models
from tests.support.tensor_sizes import LargestRows
from tif.losses import FORGET, RETAIN, distributions, make_loss
from tif.losses.distributions import Rmu, control_vector
from tif.losses.terms import Inputs
from tif.scoring import packing as layout
from tif.scoring.token_scores import Outputs, ValueRequest, score_tokens_and_values

TERMS = FORGET | RETAIN
NAMES = ("kl", "undial", "ceu", "pdu", "muse_logit_npo", "rmu", "hidden", "whp", "rkld", "palu")
CFG = make_loss(beta=1.5, rmu=Rmu(layer=0, scale=3.0, seed=4))
LN = math.log


@pytest.mark.parametrize(
    ("name", "beta", "policy", "original", "expected"),
    [
        # probabilities 1/4, 3/4 against 1/2, 1/2
        ("kl", 1, [0.0, LN(3)], [0.0, 0.0], 0.5 * LN(2) + 0.5 * LN(2 / 3)),
        # the original's true token lowered from ln 6 to ln 2: 2/3, 1/3; policy 1/4, 3/4
        ("undial", LN(3), [0.0, LN(3)], [LN(6), 0.0], 2 / 3 * LN(4) + 1 / 3 * LN(4 / 3)),
        # the true token struck out leaves all to the other
        ("ceu", 1, [0.0, LN(3)], None, LN(4 / 3)),
        ("pdu", 1, [1.0, 4.0, 1.0], None, 4.0),  # max 4, mean 2
        # the original's likeliest is token 1, whose logit is 4, mean 2
        ("palu", 1, [1.0, 4.0, 1.0], [0.0, 1.0, 0.5], 4.0),
        # policy 1/4, 3/4 against 1/2, 1/2
        ("rkld", 1, [0.0, LN(3)], [0.0, 0.0], 1 / 4 * LN(1 / 2) + 3 / 4 * LN(3 / 2)),
        # the lowered logits are largest for token 1, whatever the true one: policy 1/4, 3/4
        ("whp", 1, [0.0, LN(3)], [2.0, 2.5], LN(4 / 3)),
        ("muse_logit_npo", 2, [0.0, 1.0], [1.0, 1.0], (LN(1 + math.exp(-2)) + LN(2)) / 2),
    ],
)
def test_a_tokens_value_equals_the_hand_computed_case(name, beta, policy, original, expected):
    outputs = Outputs(torch.tensor([policy]), torch.tensor([0]))
    other = Outputs(torch.tensor([original]), torch.tensor([0])) if original else None
    value = TERMS[name].per_token(make_loss(beta=beta)).value(outputs, other)
    assert value.tolist() == pytest.approx([expected], rel=1e-5)


def opened(model):
    """What opens a model that is there already."""
    return partial(nullcontext, model)


def test_rmu_measures_the_distance_to_its_vector_and_hidden_that_to_the_original():
    goal = control_vector(2, 3.0, 4)
    outputs = Outputs(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[1.0, 2.0]]))
    other = Outputs(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[1.0, 5.0]]))
    expected = ((1 - goal[0]) ** 2 + (2 - goal[1]) ** 2).item() / 2
    assert TERMS["rmu"].per_token(CFG).value(outputs, None).tolist() == pytest.approx([expected])
    assert TERMS["hidden"].per_token(CFG).value(outputs, other).tolist() == [4.5]


def test_rmus_vector_has_its_length_depends_on_its_seed_only_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    vector = control_vector(50, 3.0, 1)
    assert vector.norm().item() == pytest.approx(3)
    assert (vector >= 0).all()
    assert torch.equal(vector, control_vector(50, 3.0, 1))
    assert not torch.equal(vector, control_vector(50, 3.0, 2))
    assert torch.equal(torch.random.get_rng_state(), state)


def plain(name, z, z_ref, y, h, h_ref):
    """A token's value by the formula, from logits (V,), the true token and hidden states (d,)."""
    p, ref = torch.softmax(z, 0), torch.softmax(z_ref, 0)
    if name == "kl":
        return sum(ref[v] * (ref[v].log() - p[v].log()) for v in range(len(z)))
    if name == "undial":
        adjusted = z_ref.clone()
        adjusted[y] = adjusted[y] - CFG.beta
        return torch.nn.functional.cross_entropy(z[None], adjusted.softmax(0)[None])
    if name == "ceu":
        others = p.detach().clone()
        others[y] = 0
        return -(others / others.sum() * p.log()).sum()
    if name == "pdu":
        return (z.max() - z.mean()) ** 2
    if name == "muse_logit_npo":
        return -2 / CFG.beta * torch.log(1 / (1 + torch.exp(-CFG.beta * (z_ref - z)))).mean()
    if name == "rkld":  # the reference is what lowers
        return sum(p[v] * (p[v].log() - ref[v].log()) for v in range(len(z)))
    if name == "palu":
        return (z[z_ref.argmax()] - z.mean()) ** 2
    if name == "whp":  # the reference is what lowers
        return torch.logsumexp(z, 0) - z[z_ref.tolist().index(max(z_ref.tolist()))]
    goal = torch.rand(len(h), generator=torch.Generator().manual_seed(4))
    return ((h - (3.0 * goal / goal.norm() if name == "rmu" else h_ref)) ** 2).mean()


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("name", NAMES)
def test_values_equal_the_formula_on_the_models_full_logits_and_so_do_gradients(
    name, batching, monkeypatch
):
    monkeypatch.setitem(layout.PACKED_TOKENS, "cpu", 11)  # several parts a batch
    model, original, grads, results = tiny_models.model(seed=1), tiny_models.model(seed=2), [], []
    term = TERMS[name].per_token(CFG)
    requests = [ValueRequest(0, len(tiny_models.ITEMS), term, opened(original))]
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    _, (actual,) = score_tokens_and_values(model, batch, batching, requests)
    expected = torch.zeros_like(actual)
    for i, e in enumerate(tiny_models.ITEMS):
        ids = torch.tensor([e.input_ids])
        outputs, other = (m(input_ids=ids, output_hidden_states=True) for m in (model, original))
        for t in range(1, len(e.input_ids)):
            if e.uw[t] or e.gw[t]:
                hidden = [o.hidden_states[1][0, t] for o in (outputs, other)]
                logits = [o.logits[0, t - 1] for o in (outputs, other)]
                expected[i, t - 1] = plain(
                    name, logits[0], logits[1].detach(), e.input_ids[t], hidden[0], hidden[1]
                )
    for values in (actual, expected):
        model.zero_grad()
        (values * torch.arange(1, 9)).sum().backward()
        results.append(values.detach())
        grads.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)
    assert max(g.abs().max() for g in grads[1].values()) > 0
    for k, g in grads[1].items():
        torch.testing.assert_close(
            grads[0][k], g, atol=2e-3, rtol=1e-3, msg=lambda m, k=k: f"{k}: {m}"
        )
    assert all(p.grad is None for p in original.parameters()) or name == "hidden"


@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_of_a_tokens_value_are_right(name):
    generator = torch.Generator().manual_seed(0)
    z, z_ref, h, h_ref = (
        torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    y, term = torch.tensor([0, 3, 4]), TERMS[name].per_token(CFG)
    if name == "ceu":  # its target has no gradient: compare with the target fixed
        target = z.softmax(1).scatter(1, y[:, None], 0.0)
        target = target / target.sum(1, keepdim=True)
        own_grad, fixed = (
            torch.autograd.grad(f(z.requires_grad_()).sum(), z)[0]
            for f in (
                lambda z: term.value(Outputs(z, y), None),
                lambda z: -(target * z.log_softmax(1)).sum(1),
            )
        )
        torch.testing.assert_close(own_grad, fixed)
        return

    def value(z, h):
        return term.value(Outputs(z, y, h), Outputs(z_ref, y, h_ref))

    assert torch.autograd.gradcheck(value, (z.requires_grad_(), h.requires_grad_()))


@pytest.mark.parametrize("name", NAMES)
def test_a_terms_mean_ignores_padding_order_and_an_empty_mask(name):
    token_values = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()

    def value(token_values, mask):
        return TERMS[name](Inputs(None, mask, token_values=token_values), CFG).item()

    per_sample = name in ("rmu", "hidden")
    assert value(token_values, mask) == pytest.approx((1.5 + 4) / 2 if per_sample else 7 / 3)
    assert value(token_values.flip(0), mask.flip(0)) == pytest.approx(value(token_values, mask))
    assert value(token_values, torch.zeros_like(mask)) == 0


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_distributions_are_held_for_a_few_samples_at_a_time_forward_and_backward(batching):
    model = tiny_models.model()
    items = [tiny_models.encoded(str(i), "p" * 20 + "u" * 20) for i in range(30)]
    batch = tiny_models.batch_of(*items)
    request = ValueRequest(0, 30, distributions.kl.per_token(CFG), opened(tiny_models.model()))
    with LargestRows(tiny_models.VOCAB) as largest:  # a (D, V) weight's gradient has 16 rows
        _, (values,) = score_tokens_and_values(model, batch, batching, [request])
        values.sum().backward()
    assert 16 < largest.rows <= 256  # of 600 answer tokens: what fills one packed row of 256
