"""Attention sample by sample in packed rows: the same numbers as the whole row under its mask."""

import pytest
import torch
import transformers

from tests.support import architectures, tiny_models
from tif.scoring import attention
from tif.scoring.token_scores import score_tokens

KINDS = {
    "llama": lambda: tiny_models.model("llama"),
    "qwen3": lambda: tiny_models.model("qwen3"),
    "gpt2": lambda: tiny_models.model("gpt2"),
    # a window shorter than the texts
    "mistral": lambda: tiny_models.spread(
        transformers.AutoModelForCausalLM.from_config(
            transformers.MistralConfig(**tiny_models.LLAMA_LIKE, sliding_window=3)
        )
    ),
}


def build(kind):
    model = KINDS[kind]()
    assert model.config._attn_implementation == "sdpa"
    attention.use_sample_by_sample_attention(model)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_one_sample_at_a_time(kind):
    model, plain = build(kind), KINDS[kind]()
    with torch.no_grad():
        expected = tiny_models.plain_scores(plain, tiny_models.ITEMS)
        for batching in ("packed", "padded"):
            actual = score_tokens(model, tiny_models.batch_of(*tiny_models.ITEMS), batching)
            for name in ("logit", "logprob", "mean_logit"):
                torch.testing.assert_close(
                    getattr(actual, name), getattr(expected, name), atol=1e-5, rtol=0
                )


def test_attention_never_sees_more_than_a_sample(monkeypatch):
    seen, sdpa = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, *a, **keys: seen.append((q.shape[2], k.shape[2])) or sdpa(q, k, *a, **keys),
    )
    score_tokens(build("llama"), tiny_models.batch_of(*tiny_models.ITEMS))
    assert seen == [(7, 7), (4, 4), (9, 9), (5, 5)] * 2  # layers


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_equal_those_of_padded_batches_recomputed_or_not(recompute):
    gradients = []
    for batching in ("packed", "padded"):
        model = build("llama").train()
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        score_tokens(
            model, tiny_models.batch_of(*tiny_models.ITEMS), batching
        ).logprob.sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for packed, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_a_model_of_another_attention_stays_as_it_is():
    model = tiny_models.model("llama")
    model.set_attn_implementation("eager")
    attention.use_sample_by_sample_attention(model)
    assert model.config._attn_implementation == "eager"
    assert attention.sample_borders(model, torch.tensor([3, 4])) == {}


def test_an_exported_model_does_not_name_it(tmp_path):
    build("llama").save_pretrained(tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["deepseek_v32", "falcon"])
def test_a_model_whose_code_asks_for_sdpa_keeps_it(family):
    # Under another name DeepSeek's sparse attention would see all tokens, not the 8 of its index.
    model, ids = architectures.build(family), torch.arange(3, 33)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        attention.use_sample_by_sample_attention(model)
        actual = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(actual, expected)
