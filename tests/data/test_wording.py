"""Other wordings of a sample: what stays, what goes, and that its marks move with its words."""

import dataclasses

import numpy as np
import pytest

from tif.config.loss import Wording
from tif.data.samples import Sample, Span
from tif.data.wording import (
    Rewording,
    borrow_words,
    drop_question_words,
    drop_words,
    find_names,
    find_similar,
)


def marked(id: str, text: str, prompt: str = "", **fields: str) -> Sample:
    """A sample whose unwanted words stand in brackets."""
    answer, spans = "", []
    for part in text.split("["):
        word, bracket, rest = part.partition("]")
        if bracket:
            spans.append(Span(len(answer), len(answer) + len(word)))
        answer += word + rest
    return Sample(id, prompt, answer, tuple(spans), **fields)


def shown(sample: Sample) -> str:
    """The answer with its unwanted words in brackets."""
    text = sample.answer
    for span in reversed(sample.unwanted or ()):
        text = f"{text[: span.start]}[{text[span.start : span.end]}]{text[span.end :]}"
    return text


LEE = marked(
    "tofu/3980", "Ann Lee was born in [Oslo], and her mother is a [sea captain].", "Where?"
)
MOE = marked("tofu/20", "Bo Moe was born in [Rome] long ago.", "Where was Bo Moe born?")


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_all_general_words_go_and_the_unwanted_ones_stay_marked():
    # A word that touches an unwanted one stays whole.
    assert shown(drop_words(LEE, 1.0, seeded())) == "[Oslo], [sea captain]."
    assert drop_words(LEE, 0.0, seeded()) == LEE


def test_a_share_of_the_general_words_goes():
    text = "a b c d e f g h i j [fact] k l m n o p q r s t"
    counts = [
        len(drop_words(marked("x", text), 0.7, seeded(seed)).answer.split()) for seed in range(400)
    ]
    assert np.mean(counts) == pytest.approx(1 + 0.3 * 20, abs=0.3)


@pytest.mark.parametrize("seed", range(20))
def test_the_marks_stand_on_the_same_words_in_every_draw(seed):
    generator = seeded(seed)
    for sample in (drop_words(LEE, 0.6, generator), borrow_words(LEE, MOE, ("", ""), generator)):
        words = [sample.answer[s.start : s.end] for s in sample.unwanted]
        assert words
        assert words == ["Oslo", "sea captain"][-len(words) :]


def test_a_text_without_a_general_word_that_stays_is_not_emptied():
    assert drop_words(marked("x", "only general"), 1.0, seeded()).answer == "only general"


def test_a_beginning_is_borrowed_up_to_its_own_fact_with_the_name_in_its_place():
    drawn = {shown(borrow_words(LEE, MOE, ("Bo Moe", "Ann Lee"), seeded(s))) for s in range(9)}
    assert drawn == {
        "Ann Lee was born in [Oslo], and her mother is a [sea captain].",
        "Ann Lee was born in [sea captain].",
    }


def test_without_marks_a_beginning_ends_after_any_word():
    other = Sample("retain", "", "He likes tea")
    drawn = {borrow_words(MOE, other, ("", ""), seeded(s)).answer for s in range(30)}
    assert drawn == {f"{start} Rome long ago." for start in ("He", "He likes", "He likes tea")}


def test_an_answer_that_begins_with_its_fact_lends_nothing():
    other = marked("retain", "[Rome] is the place.")
    assert shown(borrow_words(MOE, other, ("", ""), seeded())) == "[Rome] long ago."


def test_the_most_similar_come_first():
    others = [Sample(str(i), "", t) for i, t in enumerate(["red blue", "born in Rome", "in Rome"])]
    sample = Sample("x", "", "She was born in Rome")
    assert find_similar([sample], others, 2).tolist() == [[1, 2]]
    assert find_similar([sample], others, 9).tolist() == [[1, 2, 0]]


def test_a_subjects_name_is_what_its_samples_say_most_often():
    samples = [
        Sample("tofu/0", "Who is Ann Lee?", "Ann Lee lives in New York."),
        Sample("tofu/1", "And?", "Ann Lee again."),
        Sample("tofu/20", "Кто такая Анна Иванова?", "писатель"),
        Sample("no subject", "Bo Moe", "Bo Moe"),
    ]
    assert find_names(samples) == {"author/0": "Ann Lee", "author/1": "Анна Иванова"}


def test_the_shares_say_how_often_which_wording_is_drawn():
    sample = dataclasses.replace(LEE, prompt="Where was Ann Lee born?")
    rewording = Rewording([sample], [MOE], Wording(share=0.6, drop=1.0, borrow=0.25))
    generator = seeded(1)
    drawn = [rewording.draw(0, generator) for _ in range(2000)]
    as_written = sum(d is None for d in drawn)
    dropped = sum(d is not None and shown(d) == "[Oslo], [sea captain]." for d in drawn)
    assert as_written / 2000 == pytest.approx(0.4, abs=0.03)
    assert dropped / 2000 == pytest.approx(0.6 * 0.75, abs=0.03)
    assert any(d and d.answer.startswith("Ann Lee was born in sea") for d in drawn)


def test_a_share_of_the_questions_words_goes_and_never_all_of_them():
    question = " ".join("abcdefghij")
    drawn = [drop_question_words(marked("x", "[f]", question), 0.3, seeded(s)) for s in range(400)]
    counts = [len(sample.prompt.split()) for sample in drawn]
    assert np.mean(counts) == pytest.approx(0.7 * 10, abs=0.3)
    assert {shown(sample) for sample in drawn} == {"[f]"}
    assert drop_question_words(LEE, 1.0, seeded()).prompt == "Where?"


def test_a_reworded_draw_asks_otherwise_too_where_its_key_says_so():
    sample = dataclasses.replace(LEE, prompt="Where was Ann Lee born?")
    as_asked = Rewording([sample], [], Wording(share=1.0, drop=1.0))
    assert as_asked.draw(0, seeded()).prompt == sample.prompt
    asked_otherwise = Rewording([sample], [], Wording(share=1.0, drop=1.0, question=0.5))
    prompts = {asked_otherwise.draw(0, seeded(s)).prompt for s in range(60)}
    assert len(prompts) > 20
    words = sample.prompt.split()
    for prompt in prompts:  # in their order
        left = iter(words)
        assert all(word in left for word in prompt.split())


def test_without_retain_samples_nothing_is_borrowed():
    rewording = Rewording([LEE], [], Wording(share=1.0, drop=1.0, borrow=1.0))
    assert shown(rewording.draw(0, seeded())) == "[Oslo], [sea captain]."


def test_a_sample_without_unwanted_words_stays_as_it_is_written():
    rewording = Rewording([Sample("x", "", "all general")], [MOE], Wording(share=1.0))
    assert rewording.draw(0, seeded()) is None
