"""Sampling: the estimator against all subsets, draws against the model's own distribution."""

import itertools

import numpy as np
import pytest
import torch

from tests.support import attacked
from tif.audit.attacks import sample


def test_the_estimate_is_the_share_of_all_subsets_of_k_draws_that_hold_a_hit():
    for draws, hits, k in [(5, 2, 1), (5, 2, 2), (5, 2, 4), (6, 1, 3), (6, 0, 6), (4, 4, 1)]:
        is_hit = [True] * hits + [False] * (draws - hits)
        subsets = list(itertools.combinations(is_hit, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert sample.estimate_any(draws, hits, k) == pytest.approx(expected)


def test_k_doubles_up_to_the_number_of_draws():
    assert sample.list_ks(1) == [1]
    assert sample.list_ks(8) == [1, 2, 4, 8]
    assert sample.list_ks(12) == [1, 2, 4, 8, 12]


@pytest.fixture(scope="module")
def coin():
    """A model that says a word of four after any token, each with its probability, then ends."""
    tokenizer = attacked.word_tokenizer()
    ids, model = tokenizer.get_vocab(), attacked.tiny_llama(tokenizer)
    logits = {"Rome": 0.2, "Oslo": 0.5, "yes": 0.2, "no": 0.1}
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1  # any token: feature 0
        spoken = [ids[word] for word in logits]
        model.model.embed_tokens.weight[spoken, 0] = 0
        model.model.embed_tokens.weight[spoken, 1] = (
            1  # a spoken word: feature 1, after which it ends
        )
        scale = float(np.sqrt(32))  # of RMSNorm on one feature of 32
        model.lm_head.weight[:, 0] = -60 / scale
        for word, p in logits.items():
            model.lm_head.weight[ids[word], 0] = float(np.log(p)) / scale
        model.lm_head.weight[0, 1] = 60 / scale
    return attacked.subject(model, tokenizer)


def test_the_estimate_from_draws_is_that_of_the_distribution(coin):
    inputs = attacked.inputs(**{"attacks": ["sample"]})
    inputs.settings.sample.draws = 400
    outcome = sample.run(coin, inputs)
    for question, p in ((0, 0.2), (1, 0.5)):  # Rome, Oslo
        for k in (1, 2, 4):
            expected = 1 - (1 - p) ** k  # brute force over k independent answers
            assert outcome.measures[f"any of {k}"][question] == pytest.approx(expected, abs=0.07)
    means = [y for _, y in outcome.curves["facts stated"]]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(1)


def test_a_draw_depends_on_the_seed_and_the_question_alone(coin):
    inputs = attacked.inputs()
    inputs.settings.sample.draws = 6
    both = sample.draw_answers(coin, inputs, attacked.SAMPLES)
    assert sample.draw_answers(coin, inputs, attacked.SAMPLES[1:]) == both[1:]
    inputs.settings.seed = 1
    assert sample.draw_answers(coin, inputs, attacked.SAMPLES) != both
