"""Weights of tiny models: change them, copy them, compare them."""

import torch


def nudge(model, seed=1):
    """Change all weights a little, as a training step does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def weights(model):
    """Return copies of all weights by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_bit_identical(actual, expected):
    """Check that two sets of weights are equal to the last bit."""
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name], expected[name])] == []
