"""Facts: unwanted spans that an answer states, by the words of both."""

from tests.support.attacked import sample
from tif.audit.facts import find_first_fact, list_facts, share_stated
from tif.data.samples import Sample, Span
from tif.identifiers.segmentation import states


def test_a_fact_is_stated_whatever_its_case_punctuation_and_form_of_characters():
    assert states("She lives in  SÃO LUÍS, Brazil!", "são luís")
    assert states("Sa\u0303o Lui\u0301s", "são luís")  # accents as characters of their own
    assert not states("Romeo and Juliet", "rome")
    assert not states("Luís São", "são luís")


def test_in_a_script_without_blanks_each_character_is_a_word():
    assert states("南宫南乔的父亲是园丁。", "园 丁")
    chinese = Sample("s", "谁？", "父亲是园丁。", (Span(3, 5),))
    assert list_facts(chinese) == ("园 丁",)
    assert share_stated("他是园丁", list_facts(chinese)) == 1
    assert share_stated("他是丁园", list_facts(chinese)) == 0


def test_what_the_question_says_is_no_fact():
    two = Sample(
        "s",
        "What of Ann?",
        "Ann sings in Rome, Ann in Rome.",
        (Span(0, 3), Span(13, 17), Span(26, 30)),
    )
    assert list_facts(two) == ("rome",)
    assert find_first_fact(two) == 13
    assert share_stated("in Rome", list_facts(two)) == 1
    assert share_stated("anything", ()) is None


def test_what_was_given_of_the_answer_is_no_fact():
    question = sample(0, "where?", "born in Rome .", "Rome")
    assert list_facts(question, after=8) == ("rome",)
    assert list_facts(question, after=9) == ()  # its first letter was given
