"""Rows under flash_attention_2 (a stand-in): packed, padded, sharing prompts, no 4-D mask."""

import pytest
import torch

from tests.support import flash_attention, row_models, tiny_models
from tif.data.encoding import Encoded
from tif.probes.packed_rows import choose_batching
from tif.scoring.shared_prompts import answer_logits
from tif.scoring.token_scores import score_tokens

KINDS = (
    "llama",
    "opt",
    "phi",
    "gpt-neox",
    "mixtral",
    "mistral",
    "gemma2",
    "gemma3",
)  # the last three have windows
SAMPLES = [tiny_models.encoded("a", "pppp" + "g" * 30), tiny_models.encoded("b", "pp" + "g" * 12)]


@pytest.fixture(params=KINDS)
def models(request, monkeypatch):
    """A model under flash attention, and the same one under its own choice of attention."""
    model = flash_attention.use_stand_in(monkeypatch, row_models.model(request.param))
    return model, row_models.model(request.param)


def test_the_stand_in_is_what_attends(models, monkeypatch):
    calls = []
    attend = flash_attention._attend
    monkeypatch.setattr(
        flash_attention, "_attend", lambda *args: calls.append(len(args[0])) or attend(*args)
    )
    with torch.no_grad():
        score_tokens(models[0], tiny_models.batch_of(*SAMPLES), "packed")
    assert calls == [34, 14] * 2  # two samples, two layers: never the row


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_scores_are_those_of_one_sample_alone(models, batching):
    model, plain = models
    assert choose_batching("auto", model, [SAMPLES[0].input_ids]) == "packed"
    with torch.no_grad():
        expected = tiny_models.plain_scores(plain, SAMPLES).logprob
        actual = score_tokens(model, tiny_models.batch_of(*SAMPLES), batching).logprob
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_texts_that_share_a_prompt_longer_than_the_window_stand_in_the_row_with_it(models):
    model, plain = models
    prompt, texts, expected = SAMPLES[0].input_ids, [], []
    for answer in ([3, 5, 7], [9, 2, 4, 8]):
        ids = prompt + answer
        is_answer = [t >= len(prompt) for t in range(len(ids))]
        texts.append(Encoded("same", ids, [False] * len(ids), is_answer))
    with torch.no_grad():
        for text in texts:
            logits = plain(input_ids=torch.tensor([text.input_ids])).logits[0]
            expected.append(logits[len(prompt) - 1 : -1])
        actual = answer_logits(model, [texts], "packed")
    torch.testing.assert_close(actual.logits, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_gradients_of_packed_rows_are_those_of_padded_ones(models):
    model, _ = models
    gradients = []
    for batching in ("packed", "padded"):
        model.zero_grad()
        score_tokens(model, tiny_models.batch_of(*SAMPLES), batching).logprob.sum().backward()
        gradients.append(
            [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
        )
    for packed, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-3, rtol=1e-3)
