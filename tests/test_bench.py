"""python -m tif.bench: that it measures what it says; how fast things are is no test's business."""

import json
import os

import pytest

from tif import bench


def test_a_measurement_has_a_process_of_its_own():
    assert bench._alone(os.getpid) not in (0, os.getpid())


def test_identify_measures_each_identifier_at_three_lengths(capsys, monkeypatch):
    monkeypatch.setattr(bench, "_alone", lambda measure, *args: measure(*args))
    assert bench.main(["words=1600", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["kind"], r["words"]) for r in rows] == [(k, n) for k in bench.KINDS for n in (100, 400, 1600)]
    for row in rows:
        assert row["seconds"] > 0
        assert row["words_per_second"] == pytest.approx(row["words"] / row["seconds"], rel=0.2, abs=row["words"] / 0.05)


def test_a_document_has_the_words_that_are_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("one  two\nthree " * 500)
    cfg = bench.Bench(words=1100, text=str(tmp_path / "a.txt"))
    assert bench._document(cfg).split(" ")[:4] == ["one", "two", "three", "one"]
    assert len(bench._document(cfg).split(" ")) == 1100
    assert len(bench._document(bench.Bench(words=1000)).split(" ")) == 1000
    assert bench._sample("a b c d", 3).answer == "a b c"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["what=speed"], "what: want one of identify, got 'speed'"),
        (["word=5"], "word: unknown key; did you mean words?"),
        (["text=no.txt"], "text: no file no.txt"),
        (["masked_lm=./no", "words=1000"], "masked_lm: no folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, line):
    assert bench.main(words) == 2
    (actual,) = capsys.readouterr().err.splitlines()
    assert actual.startswith(line)
