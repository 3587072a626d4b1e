"""The kinds of reference: equal to the original model, whatever becomes of the policy."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from tests.support import tiny_models
from tests.support.adapters import learned, with_lora
from tests.support.model_weights import assert_bit_identical, nudge, weights
from tests.support.tiny_models import shuffled
from tif import losses
from tif.data.encoding import collate
from tif.losses import make_loss
from tif.losses.terms import Scored, ScoredBatch
from tif.models import references
from tif.models.references import CachedReference, ModelReference, make_reference, score_samples
from tif.scoring.token_scores import ValueRequest, score_tokens, score_tokens_and_values

NAMES = ("logit", "logprob", "mean_logit")
BATCH = tiny_models.batch_of(*tiny_models.ITEMS)


def kl_values(policy, kl, original):
    """Values of a retain term that reads the original's distributions."""
    request = ValueRequest(0, len(BATCH.ids), kl, original)
    (values,) = score_tokens_and_values(policy, BATCH, "packed", [request])[1]
    return values


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (1,), (1, 3), (2, 2, 0)])
def test_cached_and_frozen_references_give_the_original_models_scores(order, batching):
    # Rows of 4, 5, 7 and 9 tokens, alone and together: batch and cache are padded to two widths.
    policy, expected = tiny_models.model(), None
    with torch.no_grad():
        expected = tiny_models.plain_scores(
            tiny_models.model(), [tiny_models.ITEMS[i] for i in order]
        )
    references = [
        make_reference(kind, policy, tiny_models.ITEMS, pad_id=0, batching=batching)
        for kind in ("auto", "cached", "frozen")
    ]
    nudge(policy)
    for reference in references:
        scores = reference.scores(shuffled(order))
        for name in NAMES:
            assert not getattr(scores, name).requires_grad
            torch.testing.assert_close(
                getattr(scores, name), getattr(expected, name), atol=1e-5, rtol=0
            )


@pytest.mark.parametrize(
    "cfg", [make_loss(), make_loss(on="all", lpl_baseline="mean", lpl_reduction="batch")]
)
def test_cached_and_frozen_references_give_the_same_loss_and_diagnostics(cfg):
    policy, batch = tiny_models.model(), shuffled((3, 0, 2, 1))
    cached, frozen = (
        make_reference(k, policy, tiny_models.ITEMS, 0, "packed") for k in ("cached", "frozen")
    )
    nudge(policy)
    scores = score_tokens(policy, batch)
    actual, expected = (
        losses.compute_loss(ScoredBatch(Scored(scores, r.scores(batch))), batch, cfg)
        for r in (cached, frozen)
    )
    torch.testing.assert_close(actual.total, expected.total)
    torch.testing.assert_close(actual.parts, expected.parts)
    assert abs(expected.parts["uw_logit_change"]) > 0.01  # the policy has moved


def test_auto_is_the_reference_without_a_second_model():
    policy = tiny_models.model()
    kinds = {
        k: type(make_reference(k, policy, tiny_models.ITEMS, 0, "packed"))
        for k in ("auto", "cached", "frozen")
    }
    assert kinds == {"auto": CachedReference, "cached": CachedReference, "frozen": ModelReference}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_cache_does_not_depend_on_the_batches_it_was_made_in(batch_size, monkeypatch):
    monkeypatch.setattr(references, "BATCH_SIZE", batch_size)
    policy = tiny_models.model()
    cache = CachedReference(score_samples(policy, tiny_models.ITEMS, 0, "packed"))
    assert [row.shape for row in cache.rows["logit"]] == [(6,), (3,), (8,), (4,)]
    with torch.no_grad():
        expected = tiny_models.plain_scores(policy, tiny_models.ITEMS)
    torch.testing.assert_close(
        cache.scores(shuffled((0, 1, 2, 3))).logprob, expected.logprob, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ["cached", "frozen"])
@pytest.mark.parametrize("training", [True, False])
def test_a_reference_ignores_dropout_and_leaves_the_policys_mode_alone(kind, training):
    policy = tiny_models.model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train(training)
    with torch.no_grad():
        expected = tiny_models.plain_scores(tiny_models.model("gpt2"), tiny_models.ITEMS)
    reference = make_reference(kind, policy, tiny_models.ITEMS, 0, "packed")
    assert policy.training is training
    policy.train()
    actual = reference.scores(shuffled((0, 1, 2, 3)))
    torch.testing.assert_close(actual.logit, expected.logit, atol=1e-5, rtol=0)


def test_the_frozen_reference_is_a_copy_that_cannot_learn():
    policy = tiny_models.model().train()
    before, reference = weights(policy), make_reference("frozen", policy, (), 0, "packed")
    nudge(policy)
    assert_bit_identical(reference.model.state_dict(), before)
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert all(p.requires_grad for p in policy.parameters())
    assert not reference.model.training
    assert policy.training


def test_the_cache_holds_12_bytes_a_token_and_no_view_of_larger_tensors():
    cache = CachedReference(score_samples(tiny_models.model(), tiny_models.ITEMS, 0, "packed"))
    stored = sum(row.untyped_storage().nbytes() for rows in cache.rows.values() for row in rows)
    assert stored == 12 * (6 + 3 + 8 + 4)


def test_scores_are_told_apart_by_sample_not_by_position_in_the_batch():
    # The cache is looked up by Batch.index alone.
    rows = {
        name: [torch.full((2,), float(10 * i + k)) for i in range(3)]
        for k, name in enumerate(NAMES)
    }
    batch = collate([tiny_models.encoded("x", "pgg"), tiny_models.encoded("y", "pggg")], [2, 0], 0)
    scores = CachedReference(rows).scores(batch)
    assert scores.logit.tolist() == [[20.0, 20.0, 0.0], [0.0, 0.0, 0.0]]
    assert scores.logprob.tolist() == [[21.0, 21.0, 0.0], [1.0, 1.0, 0.0]]
    assert scores.mean_logit.tolist() == [[22.0, 22.0, 0.0], [2.0, 2.0, 0.0]]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_adapter_reference_is_the_original_model_after_training_and_leaves_the_policy_as_it_is(
    kind,
):
    policy = with_lora(kind)
    reference = references.make_reference("adapter", policy, tiny_models.ITEMS, 0, "packed")
    learned(policy).train()
    with torch.no_grad():
        expected = tiny_models.plain_scores(tiny_models.model(kind), tiny_models.ITEMS)
    before = score_tokens(policy.eval(), BATCH).logit.detach()
    policy.train()
    actual = reference.scores(BATCH)
    torch.testing.assert_close(actual.logit, expected.logit, atol=1e-5, rtol=0)
    assert not actual.logit.requires_grad
    assert policy.training
    assert all(w.requires_grad == (".lora_" in name) for name, w in policy.named_parameters())
    assert (before - expected.logit).abs().max() > 0.1
    torch.testing.assert_close(score_tokens(policy.eval(), BATCH).logit, before)


def test_all_references_give_the_same_loss_and_gradient():
    results = {}
    for kind in ("cached", "frozen", "adapter"):
        policy = with_lora()
        reference = references.make_reference(kind, policy, tiny_models.ITEMS, 0, "packed")
        learned(policy)
        scored = ScoredBatch(Scored(score_tokens(policy, BATCH), reference.scores(BATCH)))
        terms = losses.compute_loss(scored, BATCH, make_loss(retain="none"))
        terms.total.backward()
        results[kind] = (
            terms.total.detach(),
            [w.grad for w in policy.parameters() if w.requires_grad],
        )
    for kind in ("frozen", "adapter"):
        torch.testing.assert_close(results[kind], results["cached"])


def test_the_adapter_reference_serves_losses_that_read_whole_distributions():
    policy, (kl,) = with_lora(), [losses.RETAIN["kl"].per_token(make_loss())]
    reference = references.make_reference("adapter", policy, tiny_models.ITEMS, 0, "packed")
    assert kl_values(policy, kl, reference.use_model).abs().max() < 1e-5
    learned(policy)
    value = kl_values(policy, kl, reference.use_model).sum()
    value.backward()  # the reference ran without adapters within a graph that is made again
    frozen = tiny_models.model()
    adapted = with_lora()
    learned(adapted)
    expected = kl_values(adapted, kl, partial(nullcontext, frozen)).sum()
    expected.backward()
    torch.testing.assert_close(value, expected)
    for a, b in zip(policy.parameters(), adapted.parameters(), strict=True):
        assert a.grad is None if b.grad is None else torch.allclose(a.grad, b.grad, atol=1e-5)


def test_the_adapter_reference_scores_more_answer_tokens_than_a_chunk_holds():
    policy = learned(with_lora())
    reference = references.ModelReference(policy, "packed")
    with reference.use_model() as model:
        actual = score_tokens(model, BATCH, "packed", chunk_tokens=3)
    torch.testing.assert_close(actual.logit, reference.scores(BATCH).logit)
