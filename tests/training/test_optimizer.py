"""The optimizer of 16-bit weights: does it take the steps that rounding loses?"""

import pytest
import torch

from tests.support import architectures
from tif.config.errors import ConfigError
from tif.config.schema import Optimizer
from tif.training import optimizer as optimizers
from tif.training.optimizer import make_optimizer, round_at_random

STEPS = 200


def layer(dtype):
    """Return a layer of 10,000 weights, the same to the last bit in each dtype."""
    weight = 0.03 * torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    linear = torch.nn.Module()
    linear.weight = torch.nn.Parameter(weight.bfloat16().to(dtype))
    return linear


def movement(dtype, name):
    """Return what 200 steps of noisy gradients towards a target at lr 1e-5 change in a layer."""
    generator = torch.Generator().manual_seed(1)
    linear = layer(dtype)
    start = linear.weight.detach().float().clone()
    target = start + 0.01 * torch.randn(100, 100, generator=generator)
    optimizer = make_optimizer(linear, Optimizer(name=name, lr=1e-5, weight_decay=0), "32-true")
    for _ in range(STEPS):
        noise = 0.02 * torch.randn(100, 100, generator=generator)
        linear.weight.grad = (linear.weight.detach().float() - target + noise).to(dtype)
        optimizer.step()
    return linear.weight.detach().float() - start, optimizer


def share(actual, expected):
    """Return how much of a movement was made: 1 = all of it, rounding aside."""
    return float((actual * expected).sum() / expected.square().sum())


def test_bfloat16_weights_move_on_average_as_float32_weights_do():
    expected, optimizer = movement(torch.float32, "auto")
    assert type(optimizer) is torch.optim.AdamW
    assert share(movement(torch.bfloat16, "auto")[0], expected) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", [(), (7,), (5, 3), (3, 2, 2)])
def test_a_weight_that_is_updated_in_pieces_moves_as_torchs_adamw_moves_it(monkeypatch, shape):
    monkeypatch.setattr(optimizers, "PIECE", 4)
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(3)
        module = torch.nn.Module()
        module.weight = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
        optimizer = make_optimizer(module, Optimizer(lr=0.1), "32-true")
        for _ in range(3):
            gradient = torch.randn(shape, generator=generator)
            module.weight.grad = gradient.bfloat16().to(dtype)
            optimizer.step()
        (state,) = optimizer.state.values()
        assert float(state["step"]) == 3
        ends.append(module.weight.detach().float())
    assert torch.allclose(*ends, atol=3 * 2**-7)  # three times a bfloat16's distance at 1


@pytest.mark.parametrize(
    ("family", "without_decay"),
    [
        (
            "mamba",
            {"A_log"},
        ),  # A = -exp(A_log): decay would pull every state towards the same speed
        (
            "zamba",
            {"A_log", "D", "dt_proj_bias"},
        ),  # one of each for every head, so all have two dimensions
        ("gpt_oss", {"down_proj_bias", "gate_up_proj_bias"}),  # biases of experts
        ("qwen3_moe", set()),
    ],
)
def test_states_of_mamba_and_biases_of_experts_do_not_decay(family, without_decay):
    model = architectures.build(family)
    optimizer = make_optimizer(model, Optimizer(weight_decay=0.1), "32-true")
    groups = {
        group["weight_decay"]: {id(w) for w in group["params"]} for group in optimizer.param_groups
    }
    tables = {
        name.rpartition(".")[2]
        for name, w in model.named_parameters()
        if w.dim() > 1 and id(w) in groups[0.0]
    }
    assert tables == without_decay
    assert all(id(weight) in groups[0.0] for weight in model.parameters() if weight.dim() < 2)


def test_plain_adamw_loses_most_steps_of_bfloat16_weights_and_says_so(capsys):
    expected, _ = movement(torch.float32, "adamw")
    assert "loses" not in capsys.readouterr().out
    assert share(movement(torch.bfloat16, "adamw")[0], expected) < 0.2
    assert "optimizer.name: adamw" in capsys.readouterr().out


def test_the_state_of_bfloat16_weights_takes_four_bytes_a_weight():
    _, optimizer = movement(torch.bfloat16, "auto")
    (state,) = optimizer.state.values()
    tensors = [value for value in state.values() if torch.is_tensor(value) and value.numel() > 1]
    assert sum(tensor.nbytes for tensor in tensors) == 4 * 10_000


def test_a_stored_state_goes_on_with_the_same_bits():
    generator = torch.Generator().manual_seed(2)
    gradients = [torch.randn(100, 100, generator=generator).bfloat16() for _ in range(6)]
    ends = []
    for stored_after in (None, 3):
        linear = layer(torch.bfloat16)
        optimizer = make_optimizer(linear, Optimizer(), "bf16-true")
        for step, gradient in enumerate(gradients):
            if step == stored_after:
                state = optimizer.state_dict()
                optimizer = make_optimizer(linear, Optimizer(), "bf16-true")
                optimizer.load_state_dict(state)
            linear.weight.grad = gradient.clone()
            optimizer.step()
        ends.append(linear.weight.detach())
    assert torch.equal(*ends)


def test_rounding_at_random_gives_a_neighbour_and_the_right_mean():
    value = torch.full((100_000,), 1 + 2**-9)  # a quarter of the way from 1 to the next bfloat16
    rounded = round_at_random(value, torch.Generator().manual_seed(0)).float()
    assert set(rounded.tolist()) == {1.0, 1 + 2**-7}
    assert float((rounded - 1).mean()) == pytest.approx(2**-9, rel=0.02)
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(round_at_random(exact.float(), torch.Generator()), exact)


def test_the_draws_come_from_the_seed_and_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    first, second = movement(torch.bfloat16, "auto")[0], movement(torch.bfloat16, "auto")[0]
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_in_float32_are_refused_by_the_optimizer_for_bfloat16():
    with pytest.raises(
        ConfigError, match="optimizer.name: adamw_bf16 is .* got float32; want auto"
    ):
        movement(torch.float32, "adamw_bf16")
