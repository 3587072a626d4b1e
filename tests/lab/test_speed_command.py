"""python -m lab.speed: wrong input."""

import pytest

from lab.speed import __main__ as bench

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["what=speed"], "what: want one of ways, eval, identify, startup, scaling, memory, got"),
        (["word=5"], "word: unknown key; did you mean words?"),
        (["text=no.txt"], "text: no file no.txt"),
        (["what=identify", "masked_lm=./no", "words=1000"], "masked_lm: no folder"),
        (["what=eval"], "model.path: want a model that was finetuned on TOFU"),
        (["what=eval", "model.path=nowhere"], "model.path: no folder nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, line):
    assert bench.main(words) == 2
    (actual,) = capsys.readouterr().err.splitlines()
    assert actual.startswith(line)
