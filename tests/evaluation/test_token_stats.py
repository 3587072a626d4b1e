"""Token statistics against a plain loop in float64, text by text through the model's forward."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny_models
from tif.config.schema import Eval
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Sample
from tif.evaluation.questions import EvaluationSetup
from tif.evaluation.tofu_prompts import encode_answer
from tif.evaluation.token_stats import score_texts
from tif.records.protocols import LEGACY_TOFU, OPEN_UNLEARNING

TEMPLATE = "Question: {prompt}\nAnswer:"
# "a" has three texts of one prompt; the last is a document: all of it is answer, and nothing
# predicts its first token.
TEXTS = (
    Encoded("a", [5, 9, 3, 7, 11], [False] * 5, [False, False, True, True, True]),
    Encoded("a", [5, 9, 4, 8, 2, 60], [False] * 6, [False, False, True, True, True, True]),
    Encoded("a", [5, 9, 3, 0], [False] * 4, [False, False, True, True]),
    Encoded("b", [44, 1, 2], [False, True, False], [False, False, True]),
    Encoded("c", list(range(30, 50)), [False] * 20, [True] * 20),
)


def greedy(net):
    """A text of which the model would have said three tokens itself, but not the fourth."""
    ids = [5]
    for _ in range(4):
        with torch.no_grad():
            ids.append(net(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
    return Encoded(
        "d", [*ids[:4], (ids[4] + 1) % tiny_models.VOCAB], [False] * 5, [False] + [True] * 4
    )


def token_stats(net, texts, tokens_per_batch, batching, original=None):
    """The statistics of each text."""
    rules = Eval(tokens_per_batch=tokens_per_batch)
    setup = EvaluationSetup(SimpleNamespace(pad_id=0, eos_id=0, end_ids=(0,)), rules, batching)
    opened = (lambda: nullcontext(original)) if original else None
    with torch.no_grad():
        scores = score_texts(net, texts, [True] * len(texts), setup, opened)
    return [score.stats for score in scores]


def plain_stats(net, e, other=None):
    """(K, 5): log p, is argmax, mean, deviation, KL of each scored token, by loops."""

    def logprobs(network):
        with torch.no_grad():
            return (
                network(input_ids=torch.tensor([e.input_ids]))
                .logits[0]
                .double()
                .log_softmax(-1)
                .tolist()
            )

    logp, before, rows = logprobs(net), logprobs(other or net), []
    for t in range(1, len(e.input_ids)):
        if e.uw[t] or e.gw[t]:
            row, token = logp[t - 1], e.input_ids[t]
            p = [2.718281828459045**x for x in row]
            mean = sum(q * x for q, x in zip(p, row, strict=True))
            std = sum(q * (x - mean) ** 2 for q, x in zip(p, row, strict=True)) ** 0.5
            moved = sum(
                2.718281828459045**y * (y - x) for x, y in zip(row, before[t - 1], strict=True)
            )
            rows.append((row[token], row[token] == max(row), mean, std, moved))
    return rows


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("tokens_per_batch", [16, 4096])
def test_token_statistics_equal_a_loop_over_the_vocabulary(batching, tokens_per_batch, monkeypatch):
    monkeypatch.setattr(
        "tif.evaluation.token_stats.CHUNK_TOKENS", 3
    )  # smaller than a batch's answer tokens
    net, other = tiny_models.model(), tiny_models.model(seed=1)
    texts = (*TEXTS, greedy(net))
    stats = token_stats(net, texts, tokens_per_batch, batching, other)
    assert len(stats) == len(texts)
    for e, actual in zip(texts, stats, strict=True):
        expected = plain_stats(net, e, other)
        logprob, top, mean, std, kl = zip(*expected, strict=True)
        assert actual.top == top
        for name, column in {"logprob": logprob, "mean": mean, "std": std, "kl": kl}.items():
            assert getattr(actual, name) == pytest.approx(column, abs=1e-5), name
    assert stats[-1].top == (True, True, True, False)
    assert len(stats[-2].logprob) == 19


def test_there_is_no_kl_without_an_original_and_none_to_oneself():
    net = tiny_models.model()
    assert all(stats.kl is None for stats in token_stats(net, TEXTS, 64, "packed"))
    itself = token_stats(net, TEXTS, 64, "packed", net)
    assert {value for stats in itself for value in stats.kl} == {0.0}


def test_statistics_are_float32_whatever_the_models_dtype():
    net = tiny_models.model().to(torch.bfloat16)
    stats = token_stats(net, TEXTS[:1], 64, "padded")[0]
    logits = net(input_ids=torch.tensor([TEXTS[0].input_ids])).logits[0].float()
    expected = logits.log_softmax(-1)[[1, 2, 3], [3, 7, 11]]
    assert stats.logprob == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_token_that_cannot_come_leaves_the_statistics_finite():
    from tif.evaluation.token_stats import _describe_tokens

    logits = torch.tensor([[1.0, 1.0, -torch.inf]])
    values = _describe_tokens(logits, torch.tensor([0]), logits)[0].tolist()
    # half and half over two tokens: log p = mean = -ln 2, no deviation, no KL
    assert values == pytest.approx([-0.693147, 1.0, -0.693147, 0.0, 0.0], abs=1e-6)


# --- what a protocol scores


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, TEMPLATE)


SAMPLE = Sample("s", "Who wrote The Glass Meridian?", "Jaime Vasquez wrote it in 1998.")


def scored_text(encoder, encoded):
    return encoder.tokenizer.decode(
        [i for i, gw in zip(encoded.input_ids, encoded.gw, strict=True) if gw]
    )


def test_open_unlearning_scores_the_answer_and_the_end_token(encoder):
    encoded = encode_answer(encoder, SAMPLE, OPEN_UNLEARNING)
    assert scored_text(encoder, encoded) == " Jaime Vasquez wrote it in 1998.<end>"
    assert encoded.input_ids == encoder.encode(SAMPLE).input_ids


def test_legacy_tofu_scores_the_answer_tag_too(encoder):
    assert (
        scored_text(encoder, encode_answer(encoder, SAMPLE, LEGACY_TOFU))
        == "Answer: Jaime Vasquez wrote it in 1998.<end>"
    )


def test_a_template_without_a_tag_has_none_to_score(tokenizer):
    inst = Encoder(tokenizer, "[INST] {prompt} [/INST]")
    for rules in (LEGACY_TOFU, OPEN_UNLEARNING):
        assert (
            scored_text(inst, encode_answer(inst, SAMPLE, rules))
            == " Jaime Vasquez wrote it in 1998.<end>"
        )


@pytest.mark.parametrize(
    ("rules", "end"), [(LEGACY_TOFU, ""), (OPEN_UNLEARNING, "<end>")], ids=["legacy", "open"]
)
def test_a_text_is_cut_after_the_protocols_tokens_and_ended_where_it_says_so(encoder, rules, end):
    long = Sample("long", "Who?", "He did not. " * 300)
    encoded = encode_answer(encoder, long, rules)
    assert len(encoded.input_ids) == rules.max_tokens + bool(end)
    assert scored_text(encoder, encoded).endswith(end or "He")
    assert scored_text(encoder, encoded).count("<end>") == bool(end)


def test_a_prompt_that_leaves_no_room_is_refused_by_its_sample(encoder):
    with pytest.raises(
        ValueError,
        match=r"sample s: its prompt has \d+ tokens, and legacy-tofu scores the first 200",
    ):
        encode_answer(encoder, Sample("s", "Who? " * 200, "He."), LEGACY_TOFU)


def test_a_document_is_scored_from_its_second_token_on(encoder):
    encoded = encode_answer(encoder, Sample("d", "", "Her father was a baker."), OPEN_UNLEARNING)
    assert all(encoded.gw)
    assert scored_text(encoder, encoded) == "Her father was a baker.<end>"
