"""Weights of tiny models: change them, copy them, compare them."""

import torch


def nudge(model, seed=1):
    """A training step's worth of change."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_bit_identical(actual, expected):
    assert actual.keys() == expected.keys()
    assert [name for name in actual if not torch.equal(actual[name], expected[name])] == []
