"""What may be compared; the refusals that forget quality makes of it are in test_tofu.py."""

import dataclasses

import pytest

from tif.records import comparability as matching
from tif.records.types import Evaluation, Record, RecordSet

ROWS = tuple(
    Record(f"q/{i}", f"Who is {n}?", f"{n} paints.", 0.5 + i, 3 + i)
    for i, n in enumerate(["Ann", "Bob", "Eve"])
)


def _evaluation(*rows):
    return Evaluation("m", {"forget": RecordSet("forget", rows)})


def test_the_same_answers_in_other_numbers_of_tokens_are_another_family():
    other = (
        ROWS[0],
        dataclasses.replace(ROWS[1], tokens=9),
        dataclasses.replace(ROWS[2], tokens=2),
    )
    assert matching.find_mismatch(_evaluation(*ROWS), _evaluation(*other)) == (
        "another model family, or end tokens counted in one only: "
        "2 of 3 answers have other numbers of tokens, "
        "first q/1: 4 here, 9 there"
    )


def test_token_counts_that_are_not_known_are_not_held_against_anyone():
    unknown = [dataclasses.replace(row, tokens=None) for row in ROWS]
    assert matching.find_mismatch(_evaluation(*ROWS), _evaluation(*unknown)) is None
    assert matching.find_mismatch(_evaluation(*unknown), _evaluation(*ROWS)) is None


def test_token_counts_are_compared_question_by_question_whatever_the_order():
    assert matching.find_mismatch(_evaluation(*ROWS), _evaluation(*reversed(ROWS))) is None


def test_records_are_aligned_by_question():
    again = dataclasses.replace(ROWS[0], id="q/again", loss=7.0)  # asked twice
    ours = RecordSet("forget", (*ROWS, again))
    theirs = RecordSet("forget", (ROWS[2], ROWS[0], ROWS[1], again))
    aligned = matching.align_records(ours, theirs)
    assert [r.id for r in aligned.records] == ["q/0", "q/1", "q/2", "q/again"]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:2],
        (*ROWS, dataclasses.replace(ROWS[0], id="x")),
        (*ROWS[:2], Record("y", "?", "!", 1.0, 1)),
    ],
)
def test_other_questions_cannot_be_aligned(rows):
    assert matching.align_records(RecordSet("forget", ROWS), RecordSet("forget", rows)) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "line"),
    [
        (
            {"max_tokens": 200},
            {"max_tokens": 512},
            "the protocol's max_tokens is 200, the retain model's is 512",
        ),
        (
            {"template": "{prompt}"},
            {"template": "chat"},
            "the protocol's template is '{prompt}', the retain model's",
        ),
        ({"max_tokens": 200}, {}, None),  # not known
        (
            {"max_new_tokens": 60, "questions": 300},
            {"max_new_tokens": 200, "questions": None},
            None,
        ),  # no loss
    ],
)
def test_every_rule_that_changes_losses_must_agree(ours, theirs, line):
    evaluations = (
        dataclasses.replace(_evaluation(*ROWS), protocol={"name": "x"} | rules)
        for rules in (ours, theirs)
    )
    mismatch = matching.find_mismatch(*evaluations)
    assert mismatch == line if line is None else mismatch.startswith(line)


@pytest.mark.parametrize(
    "template",
    [
        "system\n\nYou are a helpful assistant.user\n\n{}assistant\n\n",
        "system\n\nToday Date: 10 Apr 2025\n\nHelp the user.\nuser\n\n{}\nassistant\n\n",
        "user\n\n{}assistant",
    ],
)
def test_a_question_in_llama_3s_chat_is_the_question(template):
    wrapped = (dataclasses.replace(row, prompt=template.format(row.prompt)) for row in ROWS)
    assert matching.find_mismatch(_evaluation(*ROWS), _evaluation(*wrapped)) is None
