"""Lists of strings, pairs, rows and samples become one kind of data folder."""

import json
import pathlib

import pytest

from tif.api.samples import list_files, list_rows, read_samples, write_files
from tif.config.errors import ConfigError
from tif.data.benchmarks.text import read_texts
from tif.data.samples import Sample, Span


def test_every_form_of_a_sample_is_read_back_as_it_was_given(tmp_path):
    given = [
        "Ada lives in [[Port Lorne]].",
        ("Where?", "In [[Oslo]], not [[Rome]]."),
        ("Who?", "Nobody."),
        {"question": "When?", "answer": "In 1961.", "unwanted": ["1961"]},
        Sample("x", "Why?", "Because.", (Span(0, 7),)),
        Sample("y", "", "A text."),
    ]
    folder = write_files(list_files({"forget": given, "retain": ["Paris is a city."]}), tmp_path)
    benchmark = read_texts(str(folder))
    assert [(s.prompt, s.answer, s.unwanted) for s in benchmark.forget] == [
        ("", "Ada lives in Port Lorne.", (Span(13, 23),)),
        ("Where?", "In Oslo, not Rome.", (Span(3, 7), Span(13, 17))),
        ("Who?", "Nobody.", ()),  # others have marks: nothing is unwanted here
        ("When?", "In 1961.", (Span(3, 7),)),
        ("Why?", "Because.", (Span(0, 7),)),
        ("", "A text.", None),  # a sample says itself that it has none yet
    ]
    assert [(s.prompt, s.answer, s.unwanted) for s in benchmark.retain] == [
        ("", "Paris is a city.", None)
    ]


def test_without_any_mark_no_text_is_said_to_have_unwanted_words():
    assert list_rows("forget", ["a b", ("c", "d")]) == [
        {"text": "a b"},
        {"question": "c", "answer": "d"},
    ]


def test_the_folder_is_named_by_its_content(tmp_path):
    first = write_files(list_files({"forget": ["a"], "retain": ["b"]}), tmp_path)
    second = write_files(list_files({"retain": ["b"], "forget": ["a"]}), tmp_path)
    other = write_files(list_files({"forget": ["b"], "retain": ["a"]}), tmp_path)
    assert first == second != other
    assert json.loads((first / "forget.jsonl").read_text()) == {"text": "a"}


def test_a_path_is_taken_as_the_file_it_is(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("Ada lives in [[Port Lorne]].\r\n\r\nMore.", encoding="utf-8", newline="")
    assert list_files({"forget": file, "retain": str(file)}) == dict.fromkeys(
        ("forget.txt", "retain.txt"), "Ada lives in [[Port Lorne]].\r\n\r\nMore."
    )
    (sample,) = read_samples("samples", file)
    assert sample.unwanted == (Span(13, 23),)


WRONG = {
    "number": ([1], 'forget[0]: want a text, a pair ("question", "answer")'),
    "triple": ([("a", "b", "c")], "forget[0]: want a text"),
    "empty": (["  "], "forget[0]: sample forget[0]: the answer is empty"),
    "no_answer": ([("a", "")], "forget[0]: sample forget[0]: the answer is empty"),
    "row": ([{"q": "a"}], 'forget[0]: want a text, {"text": ...} or'),
    "string": (
        ["ok", {"text": "a b", "unwanted": ["c"]}],
        "forget[1]: unwanted: 'c' stands nowhere",
    ),
    "surrogate": (["half \ud83d"], "forget[0]: 'utf-8' codec"),
    "none": ([], "forget: want at least one sample, got none"),
    "set": ({"a"}, "forget: want a list of samples or a path, got {'a'}"),
    "missing": (
        "no/such.txt",
        "forget: no/such.txt: no such file; want a file, or a list of samples",
    ),
    "folder": (pathlib.Path("."), "forget: .: no such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_sample_is_one_line_with_its_place(name):
    content, start = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        list_files({"forget": content})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(start)


@pytest.mark.parametrize("entry", ["In [[Port Lorne.", ("Where?", "In [[Port Lorne.")])
def test_a_mark_that_is_not_closed_is_refused(entry):
    with pytest.raises(
        ConfigError, match=r"^forget\[1\]: \[\[ without words and \]\] after it; want"
    ):
        list_files({"forget": ["In [[Brindal]].", entry]})


def test_all_wrong_samples_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        list_files({"forget": ["a", 1, " "], "retain": [None]})
    places = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert places == ["forget[1]", "forget[2]", "retain[0]"]
