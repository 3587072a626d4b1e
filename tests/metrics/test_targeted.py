import math

import pytest

from tests.support.report_runs import answer_tokens, evaluation
from tif.metrics.targeted import word_probability
from tif.records.answer_tokens import AnswerTokens
from tif.records.types import Record, RecordSet, TokenStats


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
    assert word_probability(records, tokens, False) == pytest.approx([math.exp(-3.5), math.exp(-4.5)])


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
        whole = math.exp((2 * math.log(unwanted[i]) + 11 * math.log(general[i])) / 13)
        assert whole == pytest.approx(math.exp(-item.loss))
