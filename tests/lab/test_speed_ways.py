import dataclasses

import pytest
import torch

from lab.speed.ways import OthersWay
from tests.support import tiny_models
from tif.losses import compute_loss, make_loss
from tif.losses.terms import Scored, ScoredBatch

pytestmark = pytest.mark.slow


def policy_and_reference():
    """Return two different models, so that LPL is not a constant."""
    policy, reference = tiny_models.model(), tiny_models.model()
    with torch.no_grad():
        for weight in policy.parameters():
            generator = torch.Generator().manual_seed(weight.numel())
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return policy, reference


@pytest.mark.parametrize("retain", [False, True], ids=["alone", "retain"])
@pytest.mark.parametrize("name", ["release", "two-pass", "dynamic"])
def test_each_way_has_the_loss_and_the_gradient_of_one_sample_at_a_time(name, retain):
    policy, reference = policy_and_reference()
    items = tiny_models.ITEMS
    loss = make_loss(beta=0.3, pl_weight=0.01, retain="ce" if retain else "none")
    batch = tiny_models.batch_of(*items)
    with torch.no_grad():
        original = tiny_models.plain_scores(reference, items)
    scored = ScoredBatch(Scored(tiny_models.plain_scores(policy, items), original))
    if retain:
        partners = items[::-1]
        batch = dataclasses.replace(batch, retain=tiny_models.batch_of(*partners))
        scored.retain = Scored(tiny_models.plain_scores(policy, partners))
    expected = compute_loss(scored, batch, loss).total
    expected.backward()
    gradients = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    actual = OthersWay(name, policy, reference, loss)(batch)
    assert actual == pytest.approx(expected.item(), rel=1e-4)
    for weight, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-5, rtol=1e-3)
