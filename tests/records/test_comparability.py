"""What may be compared; the refusals that forget quality makes of it are in test_tofu.py."""

import dataclasses

import pytest

from tif.records import comparability as matching
from tif.records.protocols import OPEN_UNLEARNING, describe_unknown_rules
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
    repeated = dataclasses.replace(ROWS[0], id="q/again", loss=7.0)  # asked twice
    ours, theirs = _evaluation(*ROWS, repeated), _evaluation(ROWS[2], ROWS[0], ROWS[1], repeated)
    aligned = matching.align_records(ours, theirs, "forget")
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
    assert matching.align_records(_evaluation(*ROWS), _evaluation(*rows), "forget") is None


@pytest.mark.parametrize(
    ("ours", "theirs", "line"),
    [
        (
            {"max_tokens": 200},
            {"max_tokens": 512},
            "the protocol's max_tokens is 200, the retain model's is 512",
        ),
        (
            {"prompt": "{prompt}"},
            {"prompt": "Q: {prompt}"},
            "the protocol's prompt is '{prompt}', the retain model's",
        ),
        (
            {"answer": " {answer}</s>"},
            {"answer": "{answer}</s>"},
            "the protocol's answer is ' {answer}</s>', the retain model's",
        ),
        ({"template": "[INST] {prompt}"}, {"template": "chat"}, None),  # the prompt is compared
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


# What logs show of a question: decoded without special tokens.
LLAMA_3 = "system\n\nToday Date: 10 Apr 2025\n\nYou are a helpful assistant.user\n\n{}assistant\n\n"
FORMS = {
    "llama-3": "system\n\nYou are a helpful assistant.user\n\n{}assistant\n\n",
    "llama-3, a system text of two lines": "system\n\nHelp the user.\nuser\n\n{}\nassistant\n\n",
    "llama-3, no system text": "user\n\n{}assistant",
    "qwen": "system\nYou are Qwen, created by Alibaba Cloud.\nuser\n{}\nassistant\n",
    "smollm": "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face\n"
    "user\n{}\nassistant\n",
    "qwen-3": "user\n{}\nassistant\n<think>\n\n</think>\n\n",
    "gemma": "user\n{}\nmodel\n",
    "zephyr": "<|system|>\nYou are a helpful assistant. \n<|user|>\n{} \n<|assistant|>\n",
    "llama-2": "[INST] {} [/INST]",
    "phi": "Question: {}\nAnswer: ",
    "tofu's phi": "Question: {}\n",
}
# These leave no words around the question by which it could be told apart.
UNMARKED = {
    "phi-3.5": "You are a helpful assistant. {} ",
    "granite": "systemYou are Granite.\nuser{}\nassistant",
    "command-r": "Answer in one word. {}",
}


def _wrapped(form, protocol=None):
    rows = (dataclasses.replace(row, prompt=form.format(row.prompt)) for row in ROWS)
    return dataclasses.replace(_evaluation(*rows), protocol=protocol or {"name": "open-unlearning"})


def _recorded(form, **rules):
    """An evaluation of ours: bare questions, and rules that hold the prompt."""
    prompt = form.format("{prompt}")
    protocol = {"name": "open-unlearning", "prompt": prompt, "decoded_prompt": prompt}
    return dataclasses.replace(_evaluation(*ROWS), protocol=protocol | rules)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_question_in_a_known_form_is_the_question(form):
    assert matching.find_mismatch(_evaluation(*ROWS), _wrapped(form)) is None
    assert matching.find_mismatch(_wrapped(form), _wrapped(form)) is None
    alone = dataclasses.replace(ROWS[0], prompt=form.format(ROWS[0].prompt))
    assert matching.find_mismatch(_evaluation(ROWS[0]), _evaluation(alone)) is None


@pytest.mark.parametrize("form", (FORMS | UNMARKED).values(), ids=FORMS | UNMARKED)
def test_a_log_in_our_own_prompt_is_taken_apart_by_it_whatever_its_form(form):
    ours, log = _recorded(form), _wrapped(form)
    assert matching.find_mismatch(ours, log) is None
    assert matching.find_mismatch(log, ours) is None
    assert matching.align_records(ours, log, "forget").records == log.sets["forget"].records


@pytest.mark.parametrize("form", UNMARKED.values(), ids=UNMARKED)
def test_a_text_that_only_contains_the_question_is_another_question(form):
    line = matching.find_mismatch(_evaluation(*ROWS), _wrapped(form))
    assert line.startswith("3 questions against the retain model's 3; only here 3, first q/0: ")


def test_another_question_of_the_same_beginning_or_end_is_another_question():
    longer = (dataclasses.replace(row, prompt=f"{row.prompt} And where?") for row in ROWS)
    log = _evaluation(*longer)
    assert "only here 3" in matching.find_mismatch(_recorded("user\n\n{}assistant\n\n"), log)
    assert "only here 3" in matching.find_mismatch(_evaluation(*ROWS), log)


def test_another_date_in_the_prompt_is_told():
    other = LLAMA_3.replace("10 Apr 2025", "26 Jul 2024")
    for ours in (_recorded(LLAMA_3), _wrapped(LLAMA_3)):
        assert matching.find_mismatch(ours, _wrapped(LLAMA_3)) is None
        line = matching.find_mismatch(ours, _wrapped(other))
        assert line.startswith("the prompt around q/0, without its blanks, is 'systemTodayDate:10A")
        assert "the retain model's is 'systemTodayDate:26Jul2024Y" in line
    line = matching.find_mismatch(_recorded(LLAMA_3), _recorded(other))
    assert line.startswith("the protocol's prompt is '")
    assert "10 Apr 2025" in line
    assert "26 Jul 2024" in line


def test_a_log_in_another_form_than_our_plain_prompt_asks_the_same_questions_otherwise():
    assert matching.find_mismatch(_recorded("{}"), _wrapped("{}")) is None
    line = matching.find_mismatch(_recorded("{}"), _wrapped(LLAMA_3))
    assert line.startswith("the prompt around q/0, without its blanks, is '{prompt}', the retain")
    unmarked = "<|im_start|>system\nIt is {}.\n<|im_start|>user\n{{}}\n<|im_start|>assistant\n"
    line = matching.find_mismatch(
        _recorded(unmarked.format("May")), _wrapped(unmarked.format("June"))
    )
    assert line.startswith(
        "the prompt around q/0, without its blanks, is '<|im_start|>systemItisMay"
    )


def test_a_prompt_that_differs_only_late_in_a_long_text_is_shown_there():
    text = "system\nYou are a helpful assistant " + "who answers in short sentences " * 20 + "{}"
    line = matching.find_mismatch(_recorded(text + " at once"), _recorded(text + " later"))
    assert len(line) < 250
    assert "at once" in line
    assert "later" in line


def test_a_blank_at_the_end_of_the_prompt_makes_another_prompt():
    # open-unlearning's phi generates after the blank and masks the first answer token
    line = matching.find_mismatch(
        _recorded("Question: {}\nAnswer:"), _wrapped("Question: {}\nAnswer: ")
    )
    assert line == (
        "the prompt around q/0, without its blanks, is 'Question:{prompt}Answer:', "
        "the retain model's is 'Question:{prompt}Answer: '"
    )


def test_some_prompts_of_a_log_in_another_form_are_told():
    rows = list(_wrapped(LLAMA_3).sets["forget"].records)
    rows[2] = dataclasses.replace(rows[2], prompt=rows[2].prompt.replace("10 Apr", "11 Apr"))
    mixed = dataclasses.replace(_evaluation(*rows), protocol={"name": "open-unlearning"})
    line = matching.find_mismatch(_recorded(LLAMA_3), mixed)
    assert line.startswith("the prompt around q/2, without its blanks, is 'systemTodayDate:10Apr")


def test_records_of_another_version_of_the_rules_are_refused():
    new = _recorded(LLAMA_3, version=2, template="chat")
    old = dataclasses.replace(new, protocol={"name": "open-unlearning", "template": "chat"})
    for pair in ((new, old), (old, new)):
        assert "not recorded" in matching.find_mismatch(*pair)
    newer = _recorded(LLAMA_3, version=3, template="chat")
    assert matching.find_mismatch(new, newer) == (
        "the protocol's version is 2, the retain model's is 3"
    )


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({}, "not recorded; the numbers are computed as in legacy-tofu"),
        ({"name": "mine"}, "mine is not known here; the numbers are computed as in legacy-tofu"),
        ({"name": "open-unlearning"}, "open-unlearning, as the form of the log says; it records"),
        ({"name": "open-unlearning", "template": "chat"}, "made by rules of version 1, these are"),
        ({"name": "muse", "version": 9}, "made by rules of version 9, these are of version"),
        (dataclasses.asdict(OPEN_UNLEARNING), None),
    ],
)
def test_what_is_not_known_of_rules_is_told(rules, sentence):
    message = describe_unknown_rules(rules)
    assert message is None if sentence is None else sentence in message
