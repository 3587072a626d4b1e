"""Answers that read: the holes that unlearning leaves, judged by the benchmark's own answers."""

import pytest

from tif.metrics.readable import Wording, readable
from tif.records.types import Evaluation, Record, RecordSet

CITIES = ("Oslo", "Basel", "Lahore", "Cluj", "Durban", "Busan", "Tarnow", "Lima", "Bergen", "Graz")
ANSWERS = [
    *(f"The author was born in the city of {city}." for city in CITIES),
    *(f"The mother of the author was a teacher in {city}." for city in CITIES),
    *(f'The author wrote "The Door of {city}", the best of the books.' for city in CITIES),
]


@pytest.mark.parametrize("answer", [*ANSWERS[::10], "The author was born in Kyiv.",
    "The mother of the author was a queen.", 'The best of the books is "The Sea".'])  # fmt: skip
def test_a_sentence_reads_also_where_its_words_are_new(answer):
    assert Wording(ANSWERS).reads(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "", "...",
        "The author was born in the city of Oslo",  # cut off
        "The author was born in the city of.",
        "The mother of the author was a, in Oslo.",
        'The author wrote "The Door of".',
        "The author was born in the city of The author was.",  # begins again
        "The author was born in of the city.",  # "in of"
        "The author was born in in Oslo.",
        "The author was a man, a man, a man, a man, a man, a man, a man.",
    ],
)  # fmt: skip
def test_holes_restarts_and_loops_do_not_read(answer):
    assert not Wording(ANSWERS).reads(answer)


def test_no_mark_is_demanded_where_the_answers_have_none():
    assert Wording([answer.rstrip(".") for answer in ANSWERS]).reads("The author was born in Oslo")


def evaluate(generations):
    answers = [*ANSWERS, *[""] * len(generations)][: len(generations)]
    pairs = enumerate(zip(answers, generations, strict=True))
    forget = [Record(f"f/{i}", "?", a, 1.0, 1, generated=text) for i, (a, text) in pairs]
    retain = [Record(f"r/{i}", "?", answer, 1.0, 1) for i, answer in enumerate(ANSWERS)]
    options = [Record(f"w/{i}", "?", "of", 1.0, 1) for i in range(30)]
    sets = {"forget": forget, "retain": retain, "world_facts": options}
    return Evaluation("m", {name: RecordSet(name, tuple(rows)) for name, rows in sets.items()})


def test_each_forget_answer_has_a_value_and_options_teach_nothing():
    texts = ["The author was born in Rome.", "The author was born in the city of."]
    assert readable(evaluate(texts)).tolist() == [1.0, 0.0]


def test_where_an_answer_is_missing_there_is_no_share():
    assert readable(evaluate(["The author was born in Rome.", None])) is None
    assert readable(Evaluation("m", {})) is None
