"""Linear layers with oneDNN's products: the numbers of torch's own."""

import copy

import pytest
import torch

from tests.support import tiny_models
from tif.config.schema import Model
from tif.models.load import prepare_for_training
from tif.scoring import linear
from tif.scoring.token_scores import token_scores

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")


@pytest.fixture
def everywhere(monkeypatch):
    """On any CPU, whatever the size."""
    monkeypatch.setattr(linear, "pays", lambda: True)
    monkeypatch.setattr(linear, "SMALLEST", 1)


@pytest.fixture
def products(monkeypatch):
    """Shapes of the products that were made."""
    found, own = [], linear.product
    monkeypatch.setattr(linear, "product", lambda a, b, *bias: found.append((*a.shape, *b.shape)) or own(a, b, *bias))
    return found


def layers(bias=True, **keys):
    """One of torch's own with outputs enough to tell rows from columns, and the same as `linear.Linear`."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.Linear(7, 5, bias=bias, **keys)
    for p in plain.parameters():
        p.data = torch.randn(p.shape, generator=generator).to(p.dtype)
    other = copy.deepcopy(plain)
    linear.use(other)
    return plain, other


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (1, 4, 7), (2, 3, 7)])
def test_outputs_and_gradients_are_those_of_torchs_own_layer(everywhere, products, shape, bias):
    plain, other = layers(bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for grad in (torch.ones(()).expand(*shape[:-1], 5), torch.randn(*shape[:-1], 5)):  # one without strides of its own
        found = []
        for layer in (plain, other):
            out = layer(x)
            found.append([out, *torch.autograd.grad(out, [x, *layer.parameters()], grad)])
        for expected, actual in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected)
    assert len(products) == 6  # a forward and two backward ones, twice


def test_a_frozen_layer_makes_no_gradient_of_its_weight(everywhere, products):
    _, other = layers()
    other.requires_grad_(False)
    other(torch.randn(3, 7, requires_grad=True)).sum().backward()
    assert other.weight.grad is None
    assert products == [(3, 7, 5, 7), (3, 5, 7, 5)]


@pytest.mark.parametrize("why", ["no rows", "bfloat16", "float64", "autocast", "small"])
def test_what_it_cannot_do_or_does_no_faster_is_left_to_torch(everywhere, products, monkeypatch, why):
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(why, torch.float32)
    plain, other = layers(dtype=dtype)
    x = torch.randn(0 if why == "no rows" else 3, 7, dtype=dtype)
    if why == "small":
        monkeypatch.setattr(linear, "SMALLEST", 3 * 7 * 5 + 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        expected, actual = plain(x), other(x)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)
    assert products == []


@pytest.mark.parametrize("keys", [{}, {"gradient_checkpointing": True}])
def test_a_prepared_policy_has_the_scores_and_gradients_of_a_plain_one(everywhere, products, keys):
    plain, policy = tiny_models.model(), prepare_for_training(tiny_models.model(), Model(**keys), 0)
    expected, actual = (token_scores(m, tiny_models.batch_of(*tiny_models.ITEMS)) for m in (plain, policy))
    assert products
    for name in ("logit", "logprob", "mean_logit"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))
    expected.logprob.sum().backward()
    actual.logprob.sum().backward()
    for one, other in zip(policy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-5)


def test_machines_where_it_does_not_pay_keep_torchs_own_layers(monkeypatch):
    monkeypatch.setattr(linear, "pays", lambda: False)
    assert not any(
        isinstance(m, linear.Linear) for m in prepare_for_training(tiny_models.model(), Model(), 0).modules()
    )


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)],
)
def test_it_pays_on_amd_cpus_with_wide_vectors(monkeypatch, vendor, capability, expected):
    monkeypatch.setattr(linear.Path, "read_text", lambda self: f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert linear.pays.__wrapped__() is expected


def test_a_plain_view_has_torchs_own_layers_and_the_same_weights(everywhere, products):
    policy = prepare_for_training(tiny_models.model("llama-tied"), Model(), 0)
    view = linear.plain(policy)
    ids = torch.tensor([[1, 2, 3]])
    assert not any(isinstance(m, linear.Linear) for m in view.modules())
    view(input_ids=ids).logits.sum().backward()
    assert products == []
    assert all(a is b and a.grad is not None for a, b in zip(policy.parameters(), view.parameters(), strict=True))
    policy(input_ids=ids)
    assert products
