import json

import pytest

from tif.records.files import read_answer_tokens, write_answer_tokens
from tif.records.types import AnswerTokens

ANSWERS = {
    "forget": {
        "a/1": AnswerTokens((3, 5, 5), (True, False, False), ((0, 3),)),
        "a/2": AnswerTokens((3, 5), (True, False), ((0, 3),), (False, True)),
    },
    "retain": {"b/\u2028": AnswerTokens((2, 4))},
}


def test_tokens_are_read_as_they_were_written(tmp_path):
    write_answer_tokens(tmp_path / "eval", ANSWERS)
    assert read_answer_tokens(tmp_path / "eval") == ANSWERS
    assert read_answer_tokens(tmp_path) == {}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"ends": [3, 5], "uw": "1"}, "uw has 1 tokens, ends has 2"),
        ({"ends": [3, 5], "uw": "10", "gold": "1"}, "gold has 1 tokens, ends has 2"),
        ({"ends": ["3"]}, "forget/a/ends/0: want a whole number, got '3'"),
        ({}, "forget/a/ends is missing"),
        ({"ends": [3], "uw": "x"}, "forget/a/uw/0"),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path, fields, problem):
    (tmp_path / "tokens.json").write_text(json.dumps({"forget": {"a": fields}}))
    with pytest.raises(ValueError, match="tokens.json") as error:
        read_answer_tokens(tmp_path)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
