"""Depth: patched layers and the logit lens against models put together by hand."""

import copy

import pytest
import torch

from tests.support import attacked
from tif.audit.attacks import depth
from tif.audit.attacks.depth import LayerValues, depth_of, replaced_output
from tif.config.errors import ConfigError
from tif.data.encoding import collate


@pytest.fixture(scope="module")
def models():
    """Three models whose layers differ so much that patching them shows."""
    tokenizer = attacked.word_tokenizer()
    models = {}
    for seed, role in enumerate(("target", "unlearned", "retain")):
        models[role] = attacked.tiny_llama(tokenizer, seed)
        with torch.no_grad():
            for weight in models[role].parameters():
                weight.mul_(8)
    return models


def subjects_of(models):
    return {role: attacked.subject(model, role=role) for role, model in models.items()}


def inputs_of(subjects, **keys):
    inputs = attacked.inputs(**keys)
    inputs.subjects.update(subjects)
    inputs.settings.depth.threshold = 1e-6
    return inputs


def first_text(subject):
    return depth.encode_facts(subject.encoder, attacked.SAMPLES[0])


def test_only_the_facts_tokens_are_scored(models):
    subject = attacked.subject(models["target"])
    text = first_text(subject)
    scored = [
        token for token, uw, gw in zip(text.input_ids, text.uw, text.gw, strict=True) if uw or gw
    ]
    assert subject.encoder.tokenizer.decode(scored) == "Rome"


def test_replacing_a_blocks_output_everywhere_is_a_model_of_two_halves(models):
    subject = attacked.subject(models["target"])
    batch = collate([first_text(subject)], [0], 0)
    states = depth.record_states(models["retain"], batch)
    halves = copy.deepcopy(
        models["target"]
    )  # the retain model up to block 0, then the target model
    halves.model.embed_tokens = models["retain"].model.embed_tokens
    halves.model.layers[0] = models["retain"].model.layers[0]
    with torch.no_grad():
        expected = depth.mean_logprobs(halves, batch)
        before = depth.mean_logprobs(models["target"], batch)
        with replaced_output(models["target"], 0, states[0], torch.ones_like(batch.uw)):
            patched = depth.mean_logprobs(models["target"], batch)
        after = depth.mean_logprobs(models["target"], batch)
    assert patched == pytest.approx(expected.item(), rel=1e-5)
    assert abs(patched - before) > 0.1
    assert torch.equal(before, after)


def test_only_the_positions_that_predict_facts_are_patched(models):
    subject = attacked.subject(models["target"])
    batch = collate([first_text(subject)], [0], 0)
    nowhere = torch.zeros_like(batch.uw)
    states = depth.record_states(models["retain"], batch)
    with torch.no_grad():
        expected = depth.mean_logprobs(models["target"], batch)
        with replaced_output(models["target"], 0, states[0], nowhere):
            assert torch.equal(depth.mean_logprobs(models["target"], batch), expected)


def test_the_lens_reads_a_layer_as_a_model_that_ends_there_would_say_it(models):
    subject = attacked.subject(models["unlearned"])
    batch = collate([first_text(subject)], [0], 0)
    short = copy.deepcopy(models["unlearned"])
    del short.model.layers[1]
    short.config.num_hidden_layers = 1
    at = batch.uw[0].nonzero()[0, 0].item()
    with torch.no_grad():
        states = depth.record_states(models["unlearned"], batch)
        probabilities, ranks = depth.read_by_lens(models["unlearned"], batch, states)
        for layer, model in enumerate((short, models["unlearned"])):
            p_V = model(batch.input_ids, use_cache=False).logits[0, at - 1].softmax(0)
            true = p_V[batch.input_ids[0, at]]
            assert probabilities[0][layer] == pytest.approx(true.item(), rel=1e-4)
            assert ranks[0][layer] == 1 + int((p_V > true).sum())


def test_depth_is_1_for_the_target_model_and_0_for_the_retain_model(models):
    subjects = subjects_of(models)
    inputs = inputs_of(subjects)
    outcomes = {role: depth.run(subject, inputs) for role, subject in subjects.items()}
    target, unlearned, retain = (
        outcomes[role].measures["depth"] for role in ("target", "unlearned", "retain")
    )
    assert [value for value in target if value is not None] == [1.0] * len(
        [v for v in target if v is not None]
    )
    assert any(value is not None for value in target)
    assert all(value in (0.0, None) for value in retain)
    assert all(value is None or 0 <= value <= 1 for value in unlearned)


def test_depth_counts_what_the_retain_models_layers_lose():
    # layers of 0.5 and 1.5 nats count, that of 0.04 does not; 0.25 of 0.5 and all of 1.5 are lost
    values = LayerValues((0.04, 0.5, 1.5), (9.0, 0.25, 2.0), (0.0,) * 3, (1,) * 3)
    assert depth_of(values.retain_lost, values.lost, 0.05) == pytest.approx(1 - 1.75 / 2)
    assert depth_of([0.5], [-1.0], 0.05) == 1  # better than before: nothing is lost
    assert depth_of([0.01], [0.01], 0.05) is None


def test_models_of_other_shapes_or_tokens_are_refused(models):
    subjects = subjects_of(models)
    other = attacked.tiny_llama(attacked.word_tokenizer(), 0)
    other.config.hidden_size = 64
    with pytest.raises(ConfigError, match="want models of one shape"):
        depth.check(inputs_of({**subjects, "retain": attacked.subject(other)}))
    depth.check(inputs_of(subjects))
    reversed_words = attacked.word_tokenizer([" ".join(reversed(attacked.TEXTS[0].split()))])
    tokens = attacked.subject(models["retain"], reversed_words, role="retain")
    with pytest.raises(ConfigError, match="the retain model cuts s0 into other tokens"):
        depth.run(subjects["target"], inputs_of({**subjects, "retain": tokens}))
