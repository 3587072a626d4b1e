import math

import pytest

from tests.support.report_runs import answer_tokens, evaluation
from tif.metrics.targeted import (
    extracted,
    summarize_forget_words,
    summarize_words,
    word_probability,
)
from tif.records.types import AnswerTokens, Record, RecordSet, TokenStats


def record(id, *logprobs):
    flags = (True,) * len(logprobs)
    stats = TokenStats(logprobs, flags, logprobs, logprobs)
    return Record(id, "q", "a", 1.0, len(logprobs), stats=stats)


def test_the_probability_is_the_geometric_mean_of_the_chosen_tokens():
    records = RecordSet("forget", (record("1", -1.0, -2.0, -3.0, -6.0), record("2", -4.0, -5.0)))
    tokens = {
        "1": AnswerTokens((1, 2, 3, 3), (False, True, True, False)),
        "2": AnswerTokens((1, 1), (False, False)),  # no unwanted word: left out there
    }
    assert word_probability(records, tokens, True) == pytest.approx([math.exp(-2.5)])
    assert word_probability(records, tokens, False) == pytest.approx(
        [math.exp(-3.5), math.exp(-4.5)]
    )


def test_words_that_the_data_marks_count_before_those_that_an_identifier_marked():
    records = RecordSet("forget", (record("1", -1.0, -2.0, -3.0),))
    tokens = {"1": AnswerTokens((1, 2, 3), (True, False, False), ((0, 1),), (False, False, True))}
    assert word_probability(records, tokens, True) == pytest.approx([math.exp(-3.0)])
    assert word_probability(records, tokens, False) == pytest.approx([math.exp(-1.5)])


def test_answers_whose_words_are_not_known_are_left_out():
    records = RecordSet("forget", (record("1", -1.0), record("2", -1.0), record("3", -1.0)))
    tokens = {"1": AnswerTokens((1,)), "2": AnswerTokens((1, 2), (True, False))}
    assert len(word_probability(records, tokens, True)) == 0


def test_all_tokens_together_are_the_answers_probability():
    sets = {"forget": 3}
    records, tokens = evaluation(0, sets).sets["forget"], answer_tokens(sets)["forget"]
    unwanted = word_probability(records, tokens, True)
    general = word_probability(records, tokens, False)
    for i, item in enumerate(records.records):
        answer_probability = math.exp((2 * math.log(unwanted[i]) + 11 * math.log(general[i])) / 13)
        assert answer_probability == pytest.approx(math.exp(-item.loss))


def text_record(id, text, top, prompt="q"):
    """Return a record and its tokens: a token a word, all but the first with the blank before."""
    ends, end = [], -1
    for word in text.split():
        end += 1 + len(word)
        ends.append(end)
    zeros = (0.0,) * len(ends)
    stats = TokenStats(zeros, tuple(mark == "1" for mark in top), zeros, zeros)
    return Record(id, prompt, text, 1.0, len(ends), stats=stats), tuple(ends)


def test_a_passage_is_extracted_if_every_token_of_it_is_the_most_likely_one():
    # Unwanted: "Ada Quill" (both hit), "555 0192" (one missed). General: "is", "at".
    record_, ends = text_record("1", "Ada Quill is at 555 0192", "110110")
    records = RecordSet("forget", (record_,))
    tokens = {"1": AnswerTokens(ends, (True, True, False, False, True, True))}
    assert extracted(records, tokens, True).tolist() == [1.0, 0.0]
    assert extracted(records, tokens, False).tolist() == [0.0]  # "is at", of which one is missed
    summary = summarize_words(records, tokens)
    assert summary["words/unwanted_extracted"] == 0.5
    assert summary["words/general"] == 1.0


def test_what_can_be_copied_from_before_is_no_extraction():
    record_, ends = text_record("1", "Ada knows Ada and Bo", "00101", prompt="Is Bo there?")
    tokens = {"1": AnswerTokens(ends, (True, False, True, False, True))}
    assert extracted(RecordSet("forget", (record_,)), tokens, True).tolist() == [0.0]


def test_without_known_words_there_is_no_summary():
    assert summarize_words(RecordSet("forget", (record("1", -1.0),)), {}) == {}


def test_the_first_set_whose_words_are_known_stands_for_the_benchmark():
    """MUSE: the questions' short answers are not marked, the passages are."""
    sets = {
        "knowmem_forget": RecordSet("knowmem_forget", (record("k", -1.0),)),
        "verbmem_forget": RecordSet("verbmem_forget", (record("v", -2.0, -3.0),)),
        "privleak_forget": RecordSet("privleak_forget", (record("p", -4.0, -5.0),)),
    }
    marked = AnswerTokens((1, 2), (True, False))
    tokens = {"knowmem_forget": {"k": AnswerTokens((1,))}, "privleak_forget": {"p": marked}}
    assert summarize_forget_words(sets, tokens)["words/unwanted"] == pytest.approx(math.exp(-4))
    tokens["verbmem_forget"] = {"v": marked}
    assert summarize_forget_words(sets, tokens)["words/unwanted"] == pytest.approx(math.exp(-2))
    assert summarize_forget_words(sets, {}) == {}


def test_sets_that_ask_for_the_same_facts_have_names_of_their_own():
    records = RecordSet("any", (record("1", -1.0, -2.0),))
    tokens = {"1": AnswerTokens((1, 2), gold=(True, False))}
    metrics = summarize_forget_words(
        {"forget": records, "forget_implied": records}, {"forget_implied": tokens}
    )
    assert metrics["implied/unwanted"] == pytest.approx(math.exp(-1.0))
    assert metrics["implied/general"] == pytest.approx(math.exp(-2.0))
    assert not any(name.startswith(("words/", "reworded/")) for name in metrics)
