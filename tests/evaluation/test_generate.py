"""Continuation of prompts of different lengths, also by models whose cache is not as Llama's."""

import pytest
import torch

from tests.support import architectures, tiny_models
from tif.config.evaluation import EvalRules
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation import evaluate as evaluation
from tif.evaluation import generate as generation
from tif.evaluation.generate import (
    MODES,
    Decoding,
    Sampling,
    choose_mode,
    continue_prompts,
    generate,
    stream_tokens,
)
from tif.evaluation.questions import EvaluationSetup

TOGETHER, UNMASKED, EACH, ANEW = MODES
PROMPTS, LIMITS = (
    [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [8, 3, 4, 5, 6, 7]],
    [6, 4, 12, 9],
)
# qwen3_next and lfm2 are hybrids; Mamba masks the prompts alone; RWKV has no mask and no rows that
# leave; GPT-1 has no cache. Moshi's cache is wrong beyond its window of 8, also in transformers'
# own `generate`, and DeepSeek-V4 compresses blocks of tokens that padding shifts.
EXPECTED_MODES = {
    "llama": TOGETHER, "gemma3_text": TOGETHER, "qwen3_next": TOGETHER, "lfm2": TOGETHER,
    "mamba": UNMASKED, "rwkv": EACH, "deepseek_v4": EACH, "openai-gpt": ANEW, "moshi": ANEW,
}  # fmt: skip


def plain_continuation(model, prompt, limit):
    """One prompt alone, its text read anew at each step."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            token = (
                model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
            )
        if token == 0:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", EXPECTED_MODES)
def test_continuations_are_those_of_each_prompt_alone(family):
    model = architectures.build(family)
    mode = choose_mode(model, PROMPTS)
    expected = [plain_continuation(model, *pair) for pair in zip(PROMPTS, LIMITS, strict=True)]
    assert continue_prompts(model, PROMPTS, [0], LIMITS, None, mode) == expected
    assert mode == EXPECTED_MODES[family]


def test_any_of_the_end_tokens_ends_a_continuation():
    model = tiny_models.model(seed=3, tie_word_embeddings=False)
    rows = [plain_continuation(model, prompt, 12) for prompt in PROMPTS]
    first, second = rows[0][2], rows[1][3]
    stops = [
        next((i for i, token in enumerate(row) if token in (first, second)), 12) for row in rows
    ]
    expected = [row[:stop] for row, stop in zip(rows, stops, strict=True)]
    assert continue_prompts(model, PROMPTS, [0, first, second], [12] * 4) == expected
    assert len(set(stops)) > 1
    streamed = [
        list(stream_tokens(model, prompt, [0, first, second], 12, TOGETHER)) for prompt in PROMPTS
    ]
    assert streamed == expected  # for tif chat


@pytest.mark.parametrize("mode", [TOGETHER, EACH, ANEW])
def test_draws_belong_to_their_prompt_whatever_the_mode(mode):
    model, sampling = tiny_models.model(), Sampling([[1], [2], [3], [4]], temperature=2.0)
    drawn = continue_prompts(model, PROMPTS, [0], LIMITS, sampling, mode)
    assert drawn == continue_prompts(model, PROMPTS, [0], LIMITS, sampling)
    assert drawn != continue_prompts(model, PROMPTS, [0], LIMITS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "mode"), [
    ("llama", TOGETHER), ("bamba", TOGETHER), ("mixtral", TOGETHER), ("zamba2", TOGETHER),
    ("mamba", UNMASKED), ("marian", EACH), ("moshi", ANEW),
])  # fmt: skip
def test_half_precision_neither_hides_a_wrong_cache_nor_looks_like_one(family, mode, dtype):
    assert choose_mode(architectures.build(family).to(dtype), PROMPTS) == mode


def test_the_rounding_of_many_layers_in_half_precision_is_no_reason_to_generate_one_by_one():
    prompts = [list(range(3, 3 + length)) for length in (15, 20, 24, 40)]
    for seed in range(6):
        model = tiny_models.model(
            "llama", seed=seed, num_hidden_layers=30, max_position_embeddings=42
        )
        assert choose_mode(model.bfloat16(), prompts) == TOGETHER


def test_a_prompt_without_tokens_begins_after_the_end_token(tokenizer):
    model, encoder = (
        tiny_models.model("llama", vocab_size=len(tokenizer)),
        Encoder(tokenizer, "{prompt}"),
    )
    prompts = [[], [5, 6, 7]]
    expected = generate(model, encoder, [[encoder.eos_id], [5, 6, 7]], [4, 4], Decoding(100))
    assert generate(model, encoder, prompts, [4, 4], Decoding(100)) == expected


def test_a_model_without_a_cache_is_named_and_no_prompts_are_no_answers(monkeypatch, capsys):
    choose_mode(architectures.build("openai-gpt"), PROMPTS)
    assert "OpenAIGPTLMHeadModel generates without a cache" in capsys.readouterr().out
    encoder = Encoder.__new__(Encoder)
    assert generate(tiny_models.model(), encoder, [], [], Decoding(100)) == []


def test_the_way_is_looked_for_once_however_many_evaluations_ask_the_same(tokenizer, monkeypatch):
    calls = []
    monkeypatch.setattr(evaluation, "choose_mode", lambda *words: calls.append(words) or TOGETHER)
    model, encoder = (
        tiny_models.model("llama", vocab_size=len(tokenizer)),
        Encoder(tokenizer, "{prompt}"),
    )
    setup = EvaluationSetup(encoder, EvalRules(max_new_tokens=3), "padded")
    samples = tuple(
        Sample(f"{i}", f"Who wrote book {i}?", "Jaime Vasquez wrote it.") for i in range(3)
    )
    sets = {"forget": samples, "retain": samples[:2]}
    first, second = (evaluation.evaluate(model, sets, setup, "model", epoch) for epoch in (0, 1))
    assert len(calls) == 1
    assert first.sets["forget"].records == second.sets["forget"].records
    evaluation.evaluate(model, {"forget": samples[:1]}, setup, "model", 2)  # other prompts
    assert len(calls) == 2


def test_a_way_that_is_given_is_taken(tokenizer, monkeypatch):
    model, encoder = (
        tiny_models.model("llama", vocab_size=len(tokenizer)),
        Encoder(tokenizer, "{prompt}"),
    )
    expected = generate(model, encoder, PROMPTS, LIMITS, Decoding(100))
    monkeypatch.setattr(generation, "choose_mode", None)
    for mode in (TOGETHER, EACH, ANEW):
        assert generate(model, encoder, PROMPTS, LIMITS, Decoding(100, mode=mode)) == expected
