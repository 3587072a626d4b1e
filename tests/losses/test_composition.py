"""Losses as compositions: parts, weights; finetuning against torch's and Hugging Face's loss."""

import dataclasses
import math

import pytest
import torch

from tests.support import tiny_models
from tif import losses
from tif.losses import FORGET, RETAIN, compute_loss, make_loss
from tif.losses.likelihood import cross_entropy
from tif.losses.terms import Inputs, Scored, ScoredBatch
from tif.scoring.token_scores import TokenScores, score_tokens

# Two samples of four tokens, three of them predicted: "pug" + end, "pgg" + end.
BATCH = tiny_models.batch_of(tiny_models.encoded("a", "pugg"), tiny_models.encoded("b", "pggg"))
POLICY = TokenScores(
    logit=torch.tensor([[1.0, 4.0, 0.0], [5.0, 6.0, 2.0]]),
    logprob=torch.tensor([[-2.0, -1.0, -0.5], [-3.0, -0.25, -0.25]]),
    mean_logit=torch.tensor([[0.0, 0.5, 0.0], [1.0, 0.0, 0.0]]),
)
REFERENCE = TokenScores(
    logit=torch.tensor([[3.0, 4.0, 0.0], [9.0, 6.0, 5.0]]),
    logprob=torch.tensor([[-1.0, -1.0, -0.5], [-1.0, -0.5, -0.5]]),
    mean_logit=torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
)
SCORED = ScoredBatch(Scored(POLICY, REFERENCE))
RETAIN_BATCH = tiny_models.batch_of(
    tiny_models.encoded("r", "ppgg"), tiny_models.encoded("s", "pggg")
)
RETAIN_SCORES = TokenScores(
    logit=torch.zeros(2, 3),
    logprob=torch.tensor([[0.0, -1.0, -2.0], [-3.0, -4.0, -5.0]]),
    mean_logit=torch.zeros(2, 3),
)
SCORED_WITH_RETAIN = ScoredBatch(Scored(POLICY, REFERENCE), Scored(RETAIN_SCORES))


def lpl(d, beta):
    return 2 / beta * math.log(1 + math.exp(-beta * d))


def test_tpo_is_lpl_on_unwanted_plus_weighted_pl_on_general_words():
    terms = compute_loss(SCORED, BATCH, make_loss(beta=0.5, pl_weight=0.1))
    # LPL: sample a has d = 3 - 1, sample b no unwanted word. PL: a 1 + 0.5, b 3 + 0.25 + 0.25.
    expected_lpl, expected_pl = lpl(2, 0.5) / 2, (1.5 + 3.5) / 2
    assert terms.parts["lpl"].item() == pytest.approx(expected_lpl)
    assert terms.parts["pl"].item() == pytest.approx(expected_pl)
    assert terms.total.item() == pytest.approx(expected_lpl + 0.1 * expected_pl)


def test_the_diagnostics_show_what_happened_to_unwanted_words_only():
    parts = compute_loss(SCORED, BATCH, make_loss(on="all")).parts
    # token "u" of sample a: logit 1 - 3, log-probability -2 + 1, mean logit 0 - 1
    expected = {"uw_logit_change": -2.0, "uw_logprob_change": -1.0, "uw_mean_logit_change": -1.0}
    assert {k: parts[k].item() for k in expected} == expected


def test_tpo_equals_pl_when_no_word_is_unwanted():
    batch = tiny_models.batch_of(tiny_models.encoded("a", "pggg"), tiny_models.encoded("b", "pggg"))
    terms = compute_loss(SCORED, batch, make_loss(pl_weight=1.0))
    assert terms.total.item() == pytest.approx((3.5 + 3.5) / 2)
    assert terms.parts["lpl"].item() == 0


def test_on_all_lets_the_forget_term_see_every_answer_token():
    terms = compute_loss(SCORED, BATCH, make_loss(on="all", beta=0.5, preserve="none"))
    # d: a (2 + 0 + 0) / 3, b (4 + 0 + 3) / 3
    expected = (lpl(2 / 3, 0.5) + lpl(7 / 3, 0.5)) / 2
    assert terms.total.item() == pytest.approx(expected)
    assert "pl" not in terms.parts


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"lpl_baseline": "mean"}, lpl((3 - 1) - (1 - 0), 0.5) / 2),
        ({"lpl_reduction": "batch"}, lpl(2, 0.5)),
        ({"beta": 0.25}, lpl(2, 0.25) / 2),
    ],
)
def test_the_keys_of_lpl_reach_it(keys, expected):
    terms = compute_loss(SCORED, BATCH, make_loss(**{"beta": 0.5, "pl_weight": 0.0} | keys))
    assert terms.total.item() == pytest.approx(expected)


def test_the_reduction_of_pl_reaches_it():
    terms = compute_loss(SCORED, BATCH, make_loss(pl_reduction="mean"))
    assert terms.parts["pl"].item() == pytest.approx((1.5 / 2 + 3.5 / 3) / 2)


def test_the_retain_term_is_the_cross_entropy_of_the_retain_samples_weighted():
    batch = dataclasses.replace(BATCH, retain=RETAIN_BATCH)
    cfg = make_loss(beta=0.5, pl_weight=0.1, retain="ce", retain_weight=3.0)
    terms = compute_loss(SCORED_WITH_RETAIN, batch, cfg)
    # r: tokens 1 + 2 of "ppgg"; s: 3 + 4 + 5 of "pggg"; 15 nats over 5 tokens
    assert terms.parts["retain"].item() == pytest.approx(3.0)
    expected = terms.parts["lpl"] + 0.1 * terms.parts["pl"] + 3.0 * terms.parts["retain"]
    assert terms.total.item() == pytest.approx(expected.item())


def test_every_part_is_logged_unweighted_and_under_its_name():
    changes = {"uw_logit_change", "uw_logprob_change", "uw_mean_logit_change"}
    batch = dataclasses.replace(BATCH, retain=RETAIN_BATCH)
    cfg = make_loss(retain="ce", pl_weight=0.5, retain_weight=7.0)
    parts = compute_loss(SCORED_WITH_RETAIN, batch, cfg).parts
    assert set(parts) == {"lpl", "pl", "retain"} | changes
    without = dataclasses.replace(cfg, pl_weight=0.0, retain_weight=0.0)
    weightless = compute_loss(SCORED_WITH_RETAIN, batch, without)
    assert {k: v.item() for k, v in weightless.parts.items()} == {
        k: v.item() for k, v in parts.items()
    }
    assert weightless.total.item() == pytest.approx(parts["lpl"].item())


def test_the_tables_of_terms_are_what_the_configuration_offers():
    choices = {
        f.name: f.metadata["choices"]
        for f in dataclasses.fields(make_loss())
        if "choices" in f.metadata
    }
    assert {name for name, term in FORGET.items() if term.is_built_in()} == set(choices["forget"])
    assert {"none", *RETAIN} == set(choices["retain"])


def test_a_weight_per_token_weighs_a_terms_means():
    # ga: -(0.5 * -2 + 1 * -1 + 0.25 * -3) / 1.75
    # npo: S - S_ref of sample a 0.5 * (2 - 1) = 0.5, of b 0.25 * (3 - 1) = 0.5
    inputs = Inputs(POLICY, torch.tensor([[0.5, 1.0, 0.0], [0.25, 0.0, 0.0]]), REFERENCE)
    assert FORGET["ga"](inputs, make_loss()).item() == pytest.approx(-2.75 / 1.75)
    assert FORGET["npo"](inputs, make_loss(beta=1.0)).item() == pytest.approx(lpl(0.5, 1.0))


FINETUNE = make_loss(forget="ce", on="all", preserve="none")


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_finetune_equals_torchs_cross_entropy_and_hugging_faces_own_loss(batching):
    model, batch = tiny_models.model("llama"), tiny_models.batch_of(*tiny_models.ITEMS)
    labels = batch.input_ids.masked_fill(~batch.answer, -100)
    mask = (torch.arange(9) < batch.lengths[:, None]).long()
    output = model(input_ids=batch.input_ids, attention_mask=mask, labels=labels)
    logits = output.logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    terms = compute_loss(ScoredBatch(Scored(score_tokens(model, batch, batching))), batch, FINETUNE)
    torch.testing.assert_close(terms.total, expected)
    torch.testing.assert_close(terms.total, output.loss)
    assert set(terms.parts) == {"ce"}  # no reference, so no changes


def test_cross_entropy_weighs_tokens_alike_and_is_0_on_an_empty_mask():
    mask = torch.tensor([[1, 0, 0], [0, 1, 1]]).bool()
    assert cross_entropy(Inputs(POLICY, mask)).item() == pytest.approx((2 + 0.25 + 0.25) / 3)
    assert cross_entropy(Inputs(POLICY, torch.zeros_like(mask))).item() == 0


def test_a_batch_without_unwanted_words_trains_on_finite_gradients():
    batch = tiny_models.batch_of(tiny_models.ITEMS[3])  # no unwanted word
    for reduction in ("sample", "batch"):
        model = tiny_models.model()
        scores = score_tokens(model, batch)
        scored = ScoredBatch(Scored(scores, scores.detach()))
        losses.compute_loss(scored, batch, make_loss(lpl_reduction=reduction)).total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        assert max(p.grad.abs().max() for p in model.parameters()) > 0  # from PL
