"""Noise that a model adds while it learns: the policy is scored without it, as its reference is."""

import pytest
import torch
import transformers

from tests.support import architectures, tiny_models
from tif.config.model import Model
from tif.models import load as models
from tif.models.references import copy_policy, make_reference
from tif.scoring.token_scores import score_tokens
from tif.utils.torch_state import evaluation_mode, set_training_mode

BATCH = tiny_models.batch_of(*tiny_models.ITEMS)
NOISE = {
    "phimoe": {"router_jitter_noise": 0.3, "input_jitter_noise": 0.2},
    "mixtral": {"router_jitter_noise": 0.1},
    "minimax": {"router_jitter_noise": 0.1},
    "dbrx": {"ffn_config": {"moe_jitter_eps": 0.1}},
    "opt": {"layerdrop": 0.5},
    "bart": {"decoder_layerdrop": 0.5},
}


def save_noisy(family, folder):
    """Write a family's tiny model, with noise, into a folder; return it in evaluation mode."""
    config = architectures.make_config(family)
    for name, value in NOISE[family].items():
        part = getattr(config, name)
        if isinstance(value, dict):
            for inner, number in value.items():
                setattr(part, inner, number)
        else:
            setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    tiny_models.spread(model, 0).save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("family", NOISE)
def test_a_step_computes_what_the_model_computes_when_it_is_evaluated(family, tmp_path):
    model = save_noisy(family, tmp_path)
    policy = models.load_policy(Model(path=str(tmp_path)), None, 0)
    with torch.no_grad():
        expected = tiny_models.plain_scores(model, tiny_models.ITEMS).logit
    references = [
        make_reference(kind, policy, tiny_models.ITEMS, 0, "padded")
        for kind in ("cached", "frozen")
    ]
    with evaluation_mode(policy):
        pass
    assert policy.training
    for _ in range(3):
        scores = score_tokens(policy, BATCH, "padded")
        torch.testing.assert_close(scores.logit, expected, atol=1e-4, rtol=0)
    for reference in references:
        torch.testing.assert_close(reference.scores(BATCH).logit, expected, atol=1e-4, rtol=0)
    scores.logit.sum().backward()
    plain = copy_policy(policy).requires_grad_(True)
    score_tokens(plain, BATCH, "padded").logit.sum().backward()
    gradients = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in policy.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=1e-4, rtol=1e-4)


def test_only_the_modules_with_noise_stay_in_evaluation_mode_and_a_line_names_them(
    tmp_path, capsys
):
    save_noisy("phimoe", tmp_path)
    policy = models.load_policy(Model(path=str(tmp_path)), None, 0)
    set_training_mode(policy, True)
    assert policy.training
    still = {type(module).__name__ for module in policy.modules() if not module.training}
    assert still == {"PhimoeSparseMoeBlock", "PhimoeTopKRouter"}
    line = models.describe_noise(policy)
    assert line == (
        "training adds no noise: "
        "input_jitter_noise=0.2, router_jitter_noise=0.3 of the model have no effect"
    )
    assert models.describe_noise(tiny_models.model()) is None
