"""Repetition and n-gram entropy of generations against cases counted by hand."""

import math

import numpy as np
import pytest

from tif.metrics import fluency


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three four five", 0.0),  # 2 different of 2
        ("la la la la la la la", 0.75),  # 4 four-grams, all equal: 1 - 1/4
        ("a b c d a b c d", 1 - 4 / 5),  # abcd bcda cdab dabc abcd: 4 different of 5
        ("too short now", 0.0),
        ("", 0.0),
    ],
)
def test_repetition_is_the_share_of_four_grams_said_before(text, expected):
    assert fluency.repetition(text) == pytest.approx(expected, rel=1e-12)


def test_entropy_weighs_bigrams_and_trigrams_as_rome_does():
    # "a b a b c": bigrams ab ba ab bc (2, 1, 1 of 4): 1.5 bits; trigrams aba bab abc: log2(3) bits.
    assert fluency.entropy("a b a b c") == pytest.approx(
        (2 / 3 * 1.5 + 4 / 3 * math.log2(3)) / 2, rel=1e-12
    )
    assert fluency.entropy("la la la la") == 0
    assert fluency.entropy("") == 0


def test_punctuation_marks_are_words_of_their_own_in_any_script():
    assert fluency.split_words("It's Łódź, 北京!") == ["It", "'", "s", "Łódź", ",", "北京", "!"]


def test_each_generation_has_its_value_and_none_is_refused():
    values = fluency.question_values(["la la la la la", "one two three four five six"])
    assert values["repetition"] == pytest.approx([0.5, 0])
    assert values["entropy"] == pytest.approx([0, (2 / 3 * math.log2(5) + 4 / 3 * 2) / 2])
    assert all(isinstance(v, np.ndarray) for v in values.values())
    assert fluency.question_values(["a", "b"], [0.25, 0.75])["clean"].tolist() == [0.25, 0.75]
    with pytest.raises(ValueError, match="no generations"):
        fluency.question_values([])
