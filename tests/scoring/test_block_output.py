"""The output of a decoder block, against transformers' own record of hidden states."""

import pytest
import torch

from tests.support import architectures, tiny_models
from tif.config.errors import ConfigError
from tif.config.model import Model
from tif.losses import distributions, make_loss
from tif.scoring.block_output import count_blocks, pick_output, recorded_block
from tif.scoring.token_scores import ValueRequest, score_tokens_and_values
from tif.training.checks import check_hidden_layer

# transformers records hidden states without the embeddings here, so one place earlier
WITHOUT_EMBEDDINGS = ("falcon_mamba", "mamba", "rwkv")
# their blocks run several times, or on several states of a token, or cannot be told from others
REFUSED = {
    "blt", "cpmant", "ctrl", "deepseek_v4", "dory", "gemma3n_text", "git", "gpt_neox_japanese",
    "hrm_text", "hy_v4", "openai-gpt", "prophetnet", "reformer", "xlm", "xlnet",
}  # fmt: skip
QUICK = ("llama", "gpt2", "gemma2", "bloom", "mamba", "mixtral", "opt", "gemma3n_text", "xlm")
IDS = torch.arange(1, 13)[None]


def read(model, layer):
    with recorded_block(model, layer) as outputs, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    return pick_output(outputs, IDS.shape)


def transformers_hidden_states(model):
    """Return them without the final norm in the last ones, where transformers can."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.tie_last_hidden_states = False
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in architectures.FAMILIES
    ],
)
def test_the_output_of_a_block_is_what_transformers_hands_to_the_next(name):
    model = architectures.build(name).eval()
    assert (count_blocks(model) == 0) == (name in REFUSED)
    if name in REFUSED:
        return
    states = transformers_hidden_states(model)
    first = 0 if name in WITHOUT_EMBEDDINGS else 1
    for layer in range(len(states) - 2):  # the last one is next to a norm in some families
        torch.testing.assert_close(read(model, layer), states[layer + first], atol=0, rtol=0)


def test_a_loss_that_reads_the_blocks_of_a_family_without_them_is_refused_by_key():
    with pytest.raises(
        ConfigError, match=r"^loss.rmu.layer: git has no .*; want another loss.forget$"
    ):
        check_hidden_layer(make_loss(forget="rmu"), Model(init={"model_type": "git"}))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3", "phi"])
def test_the_output_of_the_last_block_is_not_normed(kind):
    model = tiny_models.model(kind)
    with torch.no_grad():
        normed = model(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
    raw = transformers_hidden_states(model)[-1]
    assert (read(model, 1) - normed).abs().max() > 0.1
    torch.testing.assert_close(read(model, 1), raw, atol=0, rtol=0)
    norm = getattr(model.model, "norm", None) or model.model.final_layernorm
    with torch.no_grad():
        torch.testing.assert_close(norm(raw), normed)


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_rmu_of_the_last_block_and_its_gradients_are_those_of_a_plain_loop(batching, checkpointing):
    loss = make_loss(forget="rmu", rmu=distributions.Rmu(layer=1, scale=3.0, seed=4))
    goal = torch.rand(16, generator=torch.Generator().manual_seed(4))
    goal = 3.0 * goal / goal.norm()
    model = tiny_models.model()
    expected = torch.zeros(4, 8)
    states = []
    model.model.layers[1].register_forward_hook(lambda _m, _i, output: states.append(output))
    for row, item in enumerate(tiny_models.ITEMS):
        model(input_ids=torch.tensor([item.input_ids]))
        for t in range(1, len(item.input_ids)):
            if item.uw[t] or item.gw[t]:
                expected[row, t - 1] = ((states[row][0, t] - goal) ** 2).mean()
    (expected * torch.arange(1, 9)).sum().backward()
    gradients = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
    other = tiny_models.model()
    if checkpointing:
        other.gradient_checkpointing_enable({"use_reentrant": False})
        other.train()
    request = ValueRequest(0, 4, distributions.rmu.per_token(loss))
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    _, (actual,) = score_tokens_and_values(other, batch, batching, [request])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    (actual * torch.arange(1, 9)).sum().backward()
    for name, gradient in gradients.items():
        actual_gradient = other.get_parameter(name).grad
        torch.testing.assert_close(actual_gradient, gradient, atol=2e-3, rtol=1e-3)
    assert not other.model.layers[1]._forward_hooks
