"""Rows whose texts are no texts, and JSON that no parser should follow."""

import json

import pytest

from tests.support import tofu_files
from tif.data.benchmarks.tofu import read_tofu
from tif.identifiers.span_file import read_samples
from tif.utils.files import parse_json

DEEP = "[" * 60_000 + "]" * 60_000


def write_tofu(folder, name, line):
    """Write a small TOFU, of which the first row of one file is `line`."""
    for file, rows in tofu_files.FILES.items():
        lines = [json.dumps(row) for row in rows]
        if file == name:
            lines[0] = line
        (folder / f"{file}.json").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"paraphrased_answer": 7}, "want a text, got 7"),
        ({"paraphrased_question": ["a"]}, "want a text, got ['a']"),
        ({"perturbed_answer": ["a", None]}, "want a text, got None"),
        ({"perturbed_answer": [["a"]]}, "want a text, got ['a']"),
        ({"answer": "half \ud83d"}, "want Unicode, got half a character (a surrogate) in "),
        ({"paraphrased_answer": "\udc80"}, "want Unicode, got half a character (a surrogate) in "),
        ({"question": None, "a\n\nb": 1}, "want a text as question, got None"),
    ],
)
def test_a_row_with_another_value_than_text_is_named(tmp_path, changes, problem):
    write_tofu(tmp_path, "forget01_perturbed", json.dumps(tofu_files.perturbed(6) | changes))
    with pytest.raises(ValueError, match="data.path") as caught:
        read_tofu(str(tmp_path), "forget01")
    message = str(caught.value)
    assert message.startswith(f"data.path: {tmp_path}/forget01_perturbed.json: line 1: {problem}")
    assert len(message.splitlines()) == 1


def test_columns_with_newlines_in_their_names_are_named_on_one_line(tmp_path):
    write_tofu(tmp_path, "forget01", '{"a\\n\\nb": 1}')
    with pytest.raises(ValueError, match="got only a b") as caught:
        read_tofu(str(tmp_path), "forget01")
    assert len(str(caught.value).splitlines()) == 1


def test_json_nested_without_end_is_refused_on_one_line(tmp_path):
    write_tofu(tmp_path, "forget01", '{"question": ' + DEEP + "}")
    with pytest.raises(ValueError, match=r"forget01.json \(line 1: .* nested too deeply\)"):
        read_tofu(str(tmp_path), "forget01")
    header = {"format": "tif-spans", "version": 1, "samples": 1}
    path = tmp_path / "spans.jsonl"
    for lines in ((json.dumps(header), DEEP), (DEEP,), ('{"a":' * 60_000,)):
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(ValueError, match=r"spans.jsonl: .*line [12]"):
            read_samples(path)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(DEEP)
