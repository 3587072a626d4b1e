"""Who's Harry Potter's two models as one, against the formula on both models' own full logits."""

import pytest
import torch

from tests.support import tiny_models
from tests.support.model_weights import nudge, weights
from tests.support.modules import unlearning_module
from tests.support.tiny_unlearning import BATCHES, config, fit, unlearning
from tif.evaluation.generate import continue_prompts
from tif.losses import make_loss
from tif.models.derived import WhpModel, WhpReference
from tif.models.references import ModelReference
from tif.scoring.token_scores import score_tokens

PROMPTS = [[5, 9, 3, 7, 11, 2, 8], [4], [6, 6, 30, 12, 55, 31, 2, 40, 17, 21, 9]]


def frozen(model):
    return ModelReference(model, "packed")


def formula(start, reinforced, ids, alpha):
    """(T, V) of plain forwards, element by element where the reinforced logit is higher."""
    with torch.no_grad():
        a, b = (m(input_ids=torch.tensor([ids])).logits[0] for m in (start, reinforced))
    return torch.where(b > a, a - alpha * (b - a), a)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_scores_are_those_of_the_formula(batching):
    start, reinforced = tiny_models.model(seed=1), tiny_models.model(seed=2)
    with torch.no_grad():
        model = WhpModel(frozen(start), reinforced, 1.5)
        scores = score_tokens(model, tiny_models.batch_of(*tiny_models.ITEMS), batching)
    for row, e in enumerate(tiny_models.ITEMS):
        logprobs = formula(start, reinforced, e.input_ids, 1.5).log_softmax(1)
        for t in range(1, len(e.input_ids)):
            expected = logprobs[t - 1, e.input_ids[t]].item() if e.uw[t] or e.gw[t] else 0.0
            assert scores.logprob[row, t - 1].item() == pytest.approx(expected, abs=1e-4)


def test_generation_keeps_a_cache_for_each_model():
    start, reinforced = tiny_models.model(seed=1), nudge(tiny_models.model(seed=1))
    expected = []
    for prompt in PROMPTS:
        new = []
        for _ in range(8):
            new.append(int(formula(start, reinforced, prompt + new, 0.5)[-1].argmax()))
        expected.append(new)
    assert len({token for row in expected for token in row}) > 6
    unused = next(t for t in range(tiny_models.VOCAB) if all(t not in row for row in expected))
    assert (
        continue_prompts(WhpModel(frozen(start), reinforced, 0.5), PROMPTS, [unused], [8] * 3)
        == expected
    )
    limits = [2, 8, 5]  # rows leave the batch, and both caches
    short = [row[:n] for row, n in zip(expected, limits, strict=True)]
    assert (
        continue_prompts(WhpModel(frozen(start), reinforced, 0.5), PROMPTS, [unused], limits)
        == short
    )


WHP = make_loss(forget="ce", on="all", preserve="none", whp=1.5)


def test_at_inference_the_start_is_lowered_by_the_policy_and_before_training_by_nothing():
    module = unlearning("frozen", loss=WHP)
    ids = tiny_models.ITEMS[0].input_ids
    with module.unlearned() as policy, torch.no_grad():
        assert torch.equal(
            policy(input_ids=torch.tensor([ids])).logits, module.policy(torch.tensor([ids])).logits
        )
    fit(module, BATCHES)
    trained, module.policy.training = weights(module.policy), True
    with module.unlearned() as policy, torch.no_grad():
        actual = policy(input_ids=torch.tensor([ids])).logits[0]
        assert not module.policy.training
    assert module.policy.training
    expected = formula(tiny_models.model(), module.policy, ids, 1.5)
    torch.testing.assert_close(actual, expected)
    assert (expected < formula(tiny_models.model(), tiny_models.model(), ids, 1.5)).any()
    assert all(torch.equal(weights(module.policy)[name], value) for name, value in trained.items())


def test_stages_inherit_the_key_and_are_evaluated_as_they_are():
    cfg = config(loss=WHP)
    cfg.data.train = "full"
    policy = tiny_models.model()
    module = unlearning_module(policy, cfg, "packed", frozen(policy))
    with module.unlearned() as policy:
        assert policy is module.policy


def test_distilled_whp_learns_the_largest_lowered_logits_and_holds_no_other_model_as_its_own():
    module = unlearning("frozen", loss=make_loss(forget="whp", on="all", preserve="none", whp=1.5))
    reinforced = nudge(tiny_models.model())
    module.reference = WhpReference(module.reference, reinforced, 1.5)
    losses = []
    for e in tiny_models.ITEMS:
        wanted = formula(tiny_models.model(), reinforced, e.input_ids, 1.5).argmax(1)
        logprobs = module.policy(torch.tensor([e.input_ids])).logits[0].log_softmax(1)
        losses += [
            -logprobs[t - 1, wanted[t - 1]]
            for t in range(1, len(e.input_ids))
            if e.uw[t] or e.gw[t]
        ]
    torch.testing.assert_close(
        module.loss(tiny_models.batch_of(*tiny_models.ITEMS)).total, sum(losses) / len(losses)
    )
    assert [name for name, _ in module.named_children()] == ["policy"]
