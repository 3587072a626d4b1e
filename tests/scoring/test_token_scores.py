"""Token scores against one plain forward a sample, for several tiny architectures."""

import dataclasses

import pytest
import torch

from tests.support import tiny_models
from tif.scoring import packing as layout
from tif.scoring.token_scores import TokenScores, score_tokens

NAMES = ("logit", "logprob", "mean_logit")


def assert_scores(actual: TokenScores, expected: TokenScores, atol=1e-5):
    for name in NAMES:
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name), atol=atol, rtol=0
        )


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_scores_equal_the_full_logits_of_one_sample_at_a_time(kind, batching):
    model = tiny_models.model(kind)
    with torch.no_grad():
        expected = tiny_models.plain_scores(model, tiny_models.ITEMS)
        actual = score_tokens(model, tiny_models.batch_of(*tiny_models.ITEMS), batching)
    assert expected.logit.std() > 0.1  # the numbers differ enough to tell positions apart
    assert_scores(actual, expected)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gemma2-window"])
def test_packed_and_padded_give_the_same_gradients(kind):
    batch, gradients = tiny_models.batch_of(*tiny_models.ITEMS), {}
    for batching in ("packed", "padded"):
        model = tiny_models.model(kind)
        scores = score_tokens(model, batch, batching)
        (
            scores.logit.sum()
            + 2 * (scores.logprob * batch.uw[:, 1:]).sum()
            - 3 * scores.mean_logit.mean()
        ).backward()
        gradients[batching] = [p.grad for p in model.parameters()]
    assert max(g.abs().max() for g in gradients["padded"]) > 0.1
    for packed, padded in zip(gradients["packed"], gradients["padded"], strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_gradients_equal_those_of_cross_entropy_over_full_logits():
    batch, model, plain = (
        tiny_models.batch_of(*tiny_models.ITEMS),
        tiny_models.model(),
        tiny_models.model(),
    )
    scores = score_tokens(model, batch)
    (-scores.logprob.sum()).backward()
    labels = batch.input_ids.masked_fill(~batch.answer, -100)[:, 1:]
    for row, item in enumerate(tiny_models.ITEMS):
        logits = plain(input_ids=torch.tensor([item.input_ids])).logits[0, :-1]
        row_labels = labels[row, : len(logits)]
        torch.nn.functional.cross_entropy(
            logits, row_labels, ignore_index=-100, reduction="sum"
        ).backward()
    for actual, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_scores_are_zero_outside_the_answer_and_the_padding_token_is_never_looked_at(batching):
    model, other = tiny_models.model(), tiny_models.batch_of(*tiny_models.ITEMS, pad_id=17)
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    with torch.no_grad():
        actual, padded_with_17 = (
            score_tokens(model, batch, batching),
            score_tokens(model, other, batching),
        )
    outside = torch.tensor(
        [
            [1, 1, 0, 0, 0, 0, 1, 1],  # a: p|pp uugg, then padding
            [0, 0, 0, 1, 1, 1, 1, 1],  # b: p|ugg
            [1, 0, 0, 0, 0, 0, 0, 0],  # c: p|p ugguugg
            [1, 1, 0, 0, 1, 1, 1, 1],  # d: p|pp gg
        ]
    ).bool()
    for name in NAMES:
        values = getattr(actual, name)
        assert values.shape == (4, 8)
        assert (values[outside] == 0).all()
        assert (values[~outside] != 0).all()
    assert_scores(padded_with_17, actual, atol=0)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_document_without_prompt_is_scored_from_its_second_token(batching):
    # Nothing stands before the first token to predict it from, whatever sample is packed in front.
    items = (
        tiny_models.encoded("a", "pug"),
        tiny_models.encoded("document", "uuggug"),
        tiny_models.encoded("z", "gg"),
    )
    model = tiny_models.model()
    with torch.no_grad():
        expected = tiny_models.plain_scores(model, items)
        batch = tiny_models.batch_of(*items)
        assert_scores(score_tokens(model, batch, batching), expected)
    assert (expected.logprob[1] != 0).all()
    assert batch.answer[1, 0]  # the batch itself is left as it was


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [7, 4, 9, 5]),  # a sample longer than the limit has a row of its own
        (10, [7, 4, 9, 5]),  # 7 + 4 = 11 is one too many
        (11, [11, 9, 5]),
        (14, [11, 14]),
        (25, [25]),
    ],
)
def test_packed_rows_hold_at_most_the_limit_and_scores_do_not_depend_on_it(
    monkeypatch, limit, expected
):
    monkeypatch.setitem(layout.PACKED_TOKENS, "cpu", limit)
    model, batch, seen = tiny_models.model(), tiny_models.batch_of(*tiny_models.ITEMS), []
    model.model.embed_tokens.register_forward_hook(
        lambda _, args, output: seen.append(tuple(args[0].shape))
    )
    with torch.no_grad():
        actual = score_tokens(model, batch)
    assert seen == [(1, n) for n in expected]
    with torch.no_grad():
        assert_scores(actual, tiny_models.plain_scores(model, tiny_models.ITEMS))


def test_scores_come_back_in_the_order_of_the_batch():
    model, order = tiny_models.model(), (2, 0, 3, 1)
    with torch.no_grad():
        expected = tiny_models.plain_scores(model, tiny_models.ITEMS)
        actual = score_tokens(model, tiny_models.batch_of(*(tiny_models.ITEMS[i] for i in order)))
    assert_scores(actual, TokenScores(*(t[list(order)] for t in dataclasses.astuple(expected))))


def test_the_lm_head_sees_answer_positions_only():
    model, batch, rows = tiny_models.model(), tiny_models.batch_of(*tiny_models.ITEMS), []
    model.lm_head.register_forward_hook(
        lambda _, args, output: rows.append(args[0].shape[:-1].numel())
    )
    score_tokens(model, batch, "packed")
    assert rows == [4 + 3 + 7 + 2]  # a: uugg, b: ugg, c: ugguugg, d: gg; never 4 * 9
    rows.clear()
    # padded: the columns before 1..8, where any row has an answer, for 4 rows
    score_tokens(model, batch, "padded")
    assert rows == [4 * 8]
    rows.clear()
    prompts_first = tiny_models.batch_of(
        tiny_models.encoded("a", "ppppug"), tiny_models.encoded("b", "ppppg")
    )
    score_tokens(model, prompts_first, "padded")
    assert rows == [2 * 2]


def test_the_policy_is_run_once_for_a_batch_that_fits():
    model, calls = tiny_models.model(), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    score_tokens(model, tiny_models.batch_of(*tiny_models.ITEMS))
    assert len(calls) == 1


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_soft_capped_logits_are_capped_once(batching):
    # Gemma 2: 3 tanh(raw / 3), and the raw logits are well beyond 3.
    model, raw = tiny_models.model("gemma2"), []
    model.lm_head.register_forward_hook(lambda _, args, output: raw.append(output.detach().clone()))
    item = tiny_models.encoded("one", "pppuugg")
    with torch.no_grad():
        scores = score_tokens(model, tiny_models.batch_of(item), batching)
    targets = torch.tensor(item.input_ids[3:])
    logits = raw[0][0].float()
    assert logits.abs().max() > 4
    capped = 3 * torch.tanh(logits / 3)
    torch.testing.assert_close(scores.logit[0, 2:], capped.gather(1, targets[:, None])[:, 0])
    torch.testing.assert_close(scores.mean_logit[0, 2:], capped.mean(1))


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_scores_of_a_bfloat16_model_are_float32_and_computed_in_float32(batching):
    model, item = tiny_models.model().to(torch.bfloat16), tiny_models.encoded("one", "pppuugg")
    with torch.no_grad():
        actual = score_tokens(model, tiny_models.batch_of(item), batching)
        expected = tiny_models.plain_scores(
            model, [item]
        )  # logits in bfloat16, log_softmax in float32
    assert {getattr(actual, name).dtype for name in NAMES} == {torch.float32}
    # A single sample runs through the same bfloat16 operations either way.
    assert_scores(actual, expected)


def test_detached_scores_are_the_same_numbers_without_a_graph():
    scores = score_tokens(tiny_models.model(), tiny_models.batch_of(*tiny_models.ITEMS))
    detached = scores.detach()
    for name in NAMES:
        assert getattr(scores, name).requires_grad
        assert not getattr(detached, name).requires_grad
        assert torch.equal(getattr(scores, name), getattr(detached, name))
