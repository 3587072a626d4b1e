"""Seeds and modes hold for a block."""

import pytest
import torch

from tests.support import tiny_models
from tif.utils import torch_state


def test_frozen_turns_gradients_and_dropout_off_and_puts_the_mode_back_even_after_an_error():
    for training in (True, False):
        model = tiny_models.model().train(training)
        with torch_state.evaluation_mode(model):
            assert not model.training
            assert not torch.is_grad_enabled()
        assert model.training is training
        assert torch.is_grad_enabled()
    model.train()
    with pytest.raises(KeyError), torch_state.evaluation_mode(model):
        raise KeyError
    assert model.training


def test_seeded_draws_repeat_and_leave_the_random_state_outside_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    with torch_state.seeded(3):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with torch_state.seeded(3):
        assert torch.equal(torch.rand(3), inside)
    with torch_state.seeded(4):
        assert not torch.equal(torch.rand(3), inside)
