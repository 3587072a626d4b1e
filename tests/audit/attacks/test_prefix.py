"""Prefix attacks: what is given, what is left to say, and a model that needs a beginning."""

import pytest
import torch

from tests.support import attacked
from tif.audit.attack import get_attack
from tif.audit.attacks import prefix
from tif.config.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer():
    return attacked.word_tokenizer()


def texts_of(attempts, tokenizer, sample=0):
    """Return what the model reads of a sample, by wording."""
    texts = [(attempt.wording, attempt.prompt) for attempt in attempts if attempt.sample == sample]
    return {wording: tokenizer.decode(prompt) for wording, prompt in texts}


def test_each_prefix_gives_what_its_name_says(tokenizer):
    encoder = attacked.subject(attacked.tiny_llama(tokenizer)).encoder
    attempts = prefix.list_attempts(attacked.SAMPLES, encoder, shots=3)
    first = texts_of(attempts, tokenizer)
    question = "Question : where is Ann ? Answer :"
    assert first["no prefix"] == question
    assert first["first 25 %"] == f"{question} Ann was"  # round(0.25 * 6) = 2 of six words
    assert first["first 50 %"] == f"{question} Ann was born"
    assert first["up to the fact"] == f"{question} Ann was born in"
    other = "Question : where is Bob ? Answer : Bob was born in Oslo ."
    assert first["other samples"] == f"{other} {question}"


def test_the_verdict_counts_the_ways_that_the_table_has(tokenizer):
    subject = attacked.subject(attacked.tiny_llama(tokenizer))
    rows = prefix.run(subject, attacked.inputs()).measures.keys() - {"any prefix"}
    action = get_attack("prefix").action(attacked.inputs().settings)
    assert action == f"the best of {len(rows)} ways to ask"


def test_nothing_is_asked_where_the_prefix_gives_the_fact_away(tokenizer):
    encoder = attacked.subject(attacked.tiny_llama(tokenizer)).encoder
    same = (
        attacked.SAMPLES[0],
        attacked.sample(1, "who is Bob ?", "Bob was born in Rome .", "Rome"),
    )
    attempts = prefix.list_attempts(same, encoder, shots=1)
    assert "no prefix" in texts_of(attempts, tokenizer, 1)
    assert "other samples" not in {attempt.wording for attempt in attempts}
    early = (attacked.sample(0, "where ?", "Rome is where she was born in .", "Rome"),)
    assert "first 25 %" not in texts_of(prefix.list_attempts(early, encoder, 1), tokenizer)


def test_a_model_that_needs_a_beginning_is_caught_by_it(tokenizer):
    model = attacked.tiny_llama(tokenizer)
    ids = tokenizer.get_vocab()
    with torch.no_grad():  # the last token alone decides: embeddings straight to the head
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        model.model.embed_tokens.weight[ids["in"], 0] = 1
        model.model.embed_tokens.weight[:, 1] += 0.1
        model.lm_head.weight[ids["Rome"], 0] = 1
        model.lm_head.weight[0, 1] = 1
    outcome = prefix.run(attacked.subject(model), attacked.inputs())
    assert outcome.measures["no prefix"] == [0, 0]
    assert outcome.measures["up to the fact"] == [1, 0]  # Rome is the fact of the first alone
    assert outcome.measures["any prefix"] == [1, 0]
    assert outcome.ids == ["s0", "s1"]


def test_a_prompt_beyond_the_models_context_is_refused_with_the_key(tokenizer):
    model = attacked.tiny_llama(tokenizer)
    model.config.max_position_embeddings = 24
    with pytest.raises(
        ConfigError, match=r"prefix\.shots: 3 samples and an answer have up to \d+ tokens"
    ):
        prefix.run(attacked.subject(model), attacked.inputs())
