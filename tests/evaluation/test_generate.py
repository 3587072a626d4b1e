"""Greedy continuation of prompts of different lengths, by models that keep their past in other ways than Llama."""

import pytest
import torch
import transformers

from tests.support import tiny_models
from tif.evaluation.generate import Sampling, continue_prompts, continue_without_cache, is_cache_exact

SMALL = tiny_models.COMMON | {"hidden_size": 16, "num_hidden_layers": 2}
HYBRID = tiny_models.LLAMA_LIKE | {"head_dim": 8}
STATEFUL = {
    "mamba": lambda: transformers.MambaConfig(**SMALL, state_size=4),
    "mamba2": lambda: transformers.Mamba2Config(
        **SMALL, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=8
    ),
    "falcon_mamba": lambda: transformers.FalconMambaConfig(**SMALL, state_size=4),
    "rwkv": lambda: transformers.RwkvConfig(
        **SMALL, attention_hidden_size=16, intermediate_size=32, context_length=64
    ),
    "lfm2": lambda: transformers.Lfm2Config(**tiny_models.LLAMA_LIKE, layer_types=["conv", "full_attention"]),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **HYBRID, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=2,
        linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=0, mlp_only_layers=[0, 1],
        num_experts_per_tok=1, moe_intermediate_size=8, shared_expert_intermediate_size=8,
    ),
}  # fmt: skip
PROMPTS, LIMITS = [[5, 6, 7], [9, 3], [11, 12, 13, 14, 15]], [6, 4, 6]


def plain_continuation(model, prompt, limit):
    """One prompt alone, its text read anew at each step."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            token = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
        if token == 0:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", [*STATEFUL, *tiny_models.CONFIGS])
def test_continuations_are_those_of_each_prompt_alone(kind):
    if kind in STATEFUL:
        model = tiny_models.spread(transformers.AutoModelForCausalLM.from_config(STATEFUL[kind]()))
        assert not is_cache_exact(model)
    else:
        model = tiny_models.model(kind)
        assert is_cache_exact(model)
    continue_batch = continue_prompts if is_cache_exact(model) else continue_without_cache
    expected = [plain_continuation(model, *pair) for pair in zip(PROMPTS, LIMITS, strict=True)]
    assert continue_batch(model, PROMPTS, 0, LIMITS) == expected


def test_draws_belong_to_their_prompt_with_and_without_a_cache():
    model, sampling = tiny_models.model(), Sampling([[1], [2], [3]], temperature=2.0)
    with_cache = continue_prompts(model, PROMPTS, 0, LIMITS, sampling)
    assert with_cache == continue_without_cache(model, PROMPTS, 0, LIMITS, sampling)
    assert with_cache != continue_prompts(model, PROMPTS, 0, LIMITS)
