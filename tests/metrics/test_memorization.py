"""Memorization by hand: T = the model predicts the token, F = not; the last is the end token."""

import pytest

from tif.metrics import memorization, tofu
from tif.records.protocols import OPEN_UNLEARNING
from tif.records.types import Record, RecordSet, TokenStats


def stats(top, kl=None, ended=True):
    hits = tuple(letter == "T" for letter in top)
    return TokenStats((-1.0,) * len(hits), hits, (-2.0,) * len(hits), (1.0,) * len(hits), kl, ended)


CASES = [
    # answer + end token, share of hits, share at the end that is all hits
    ("TTTTF", [1.0], 1.0),
    ("FTTTF", [0.75], 0.75),
    ("TTFTF", [0.75], 0.25),
    ("TTTFT", [0.75], 0.0),  # the end token does not count
    ("FFFFT", [0.0], 0.0),
    ("T", [], 0.0),  # nothing but the end token
]


@pytest.mark.parametrize(("top", "exact", "strength"), CASES)
def test_memorization_by_hand(top, exact, strength):
    assert memorization.exact_memorization([stats(top)]).tolist() == exact
    assert memorization.extraction_strength([stats(top)]).tolist() == [strength]


@pytest.mark.parametrize(
    ("top", "strength"),
    # src/evals/metrics/memorization.py of open-unlearning by hand: k is at most n - 1
    [("TTTTF", 1.0), ("FTTTF", 0.75), ("TTTFT", 0.25), ("FFFFT", 0.25), ("FT", 1.0), ("T", 0.0)],
)
def test_open_unlearnings_extraction_strength_is_one_nth_where_nothing_matches(top, strength):
    actual = memorization.extraction_strength([stats(top)], OPEN_UNLEARNING)
    assert actual.tolist() == [strength]
    in_a_set = tofu.question_values(records(stats(top)), OPEN_UNLEARNING)
    assert in_a_set["extraction_strength"].tolist() == [strength]


@pytest.mark.parametrize(
    ("top", "exact", "strength"),
    [("T", 1.0, 1.0), ("F", 0.0, 0.0), ("TTFT", 0.75, 0.25), ("TTTF", 0.75, 0.0)],
)
def test_a_text_without_an_end_token_is_counted_to_its_last_token(top, exact, strength):
    text = stats(top, ended=False)
    assert memorization.exact_memorization([text]).tolist() == [exact]
    assert memorization.extraction_strength([text]).tolist() == [strength]


def test_answers_without_a_token_do_not_count_in_exact_memorization():
    values = memorization.question_values(records(stats("T"), stats("FTF")))
    assert values["exact_memorization"].tolist() == [0.5]
    assert values["extraction_strength"].tolist() == [0.0, 0.5]
    assert memorization.question_values(records(stats("T")))["exact_memorization"] is None


def test_kl_is_a_mean_over_tokens_then_over_answers():
    divergences = memorization.kl([stats("TT", (1.0, 3.0)), stats("TTT", (0.0, 0.0, 0.3))])
    assert divergences.tolist() == pytest.approx([2.0, 0.1])


def records(*all_stats):
    return RecordSet(
        "forget",
        tuple(Record(f"q/{i}", "?", "!", 1.0, 2, stats=s) for i, s in enumerate(all_stats)),
    )


def test_a_sets_values_have_what_was_recorded():
    assert memorization.question_values(records(None, None)) == {}
    assert list(memorization.question_values(records(stats("TT"), stats("FT")))) == [
        "exact_memorization",
        "extraction_strength",
    ]
    assert list(memorization.question_values(records(stats("TT", (0.0, 0.0)))))[-1] == "kl"
    assert tofu.question_values(records(stats("TFT"), stats("TTT")))[
        "exact_memorization"
    ].tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="forget: 1 of 2 have no stats: q/1, ..."):
        memorization.question_values(records(stats("TT"), None))
