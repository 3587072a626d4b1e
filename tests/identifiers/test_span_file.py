import json
import os
import pathlib

import pytest

from tif.data.samples import Sample, Span, fingerprint
from tif.identifiers import span_file

SETTINGS = {"name": "generative", "model": "invented-7b", "threshold": 0.5}


def sample(number: int, answer: str, *spans: tuple[int, int]) -> Sample:
    return Sample(
        f"toy/{number}",
        f"Question {number}?",
        answer,
        unwanted=tuple(Span(*span) for span in spans),
    )


SAMPLES = (
    sample(0, "Mira Dell was born in Oslo.", (0, 9), (22, 26)),
    sample(1, "She writes sea stories.", (11, 22)),
    sample(2, "Nothing to hide."),
)


def blank(samples):
    """The samples before identification."""
    return [Sample(s.id, s.prompt, s.answer) for s in samples]


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    path = tmp_path / "spans.jsonl"
    span_file.write_spans(path, SAMPLES, SETTINGS)
    return path


def change(path: pathlib.Path, line: int, **keys) -> None:
    """Set keys of one line, counted as editors do."""
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | keys)
    path.write_text("\n".join(lines), encoding="utf-8")


def message(path, samples=SAMPLES) -> str:
    """What `read` says; always one line that begins with the file."""
    with pytest.raises(ValueError, match="spans") as caught:
        span_file.attach_spans(path, blank(samples))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_spans_read_back_are_those_written(path):
    assert span_file.attach_spans(path, blank(SAMPLES)) == SAMPLES


def test_the_file_is_a_header_and_a_row_for_each_sample(path):
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert head == {
        "format": "tif-spans",
        "version": 1,
        "identifier": SETTINGS,
        "data": fingerprint(SAMPLES),
        "samples": 3,
    }
    assert rows[1] == {
        "id": "toy/1",
        "prompt": "Question 1?",
        "answer": "She writes sea stories.",
        "unwanted": [[11, 22]],
    }
    assert [row["id"] for row in rows] == ["toy/0", "toy/1", "toy/2"]


def test_header_gives_the_settings(path):
    assert span_file.read_header(path)["identifier"] == SETTINGS


def test_a_sample_without_unwanted_words_stays_identified(path):
    assert span_file.attach_spans(path, blank(SAMPLES))[2].unwanted == ()


def test_offsets_count_code_points_and_the_text_stays_readable(tmp_path):
    # One emoji beyond U+FFFF (two UTF-16 units, four bytes), and U+2028, where str.splitlines
    # would end a line.
    there = sample(0, "🎈 Zoë\u2028lives in Čačak", (2, 5), (15, 20))
    path = tmp_path / "spans.jsonl"
    span_file.write_spans(path, [there], {"name": "Šedá"})
    (back,) = span_file.attach_spans(path, blank([there]))
    assert back.unwanted is not None
    assert [back.answer[span.start : span.end] for span in back.unwanted] == ["Zoë", "Čačak"]
    text = path.read_bytes().decode("utf-8")
    assert "🎈 Zoë" in text
    assert "Šedá" in text


def test_spans_are_written_sorted_and_merged(tmp_path):
    path = tmp_path / "spans.jsonl"
    span_file.write_spans(path, [sample(0, "abcdefghij", (7, 9), (0, 3), (2, 5))], {})
    assert span_file.attach_spans(path, [sample(0, "abcdefghij")])[0].unwanted == (
        Span(0, 5),
        Span(7, 9),
    )


def test_spans_of_a_larger_set_serve_a_part_of_it_in_its_own_order(path):
    assert span_file.attach_spans(path, blank([SAMPLES[2], SAMPLES[0]])) == (SAMPLES[2], SAMPLES[0])


def test_reading_keeps_the_other_fields(path):
    full = Sample(
        "toy/1", "Question 1?", "She writes sea stories.", perturbed_answers=("She writes hymns.",)
    )
    assert span_file.attach_spans(path, [full])[0].perturbed_answers == ("She writes hymns.",)


def test_missing_folders_are_made(tmp_path):
    span_file.write_spans(tmp_path / "runs" / "x" / "spans.jsonl", SAMPLES, {})
    assert (
        span_file.attach_spans(tmp_path / "runs" / "x" / "spans.jsonl", blank(SAMPLES)) == SAMPLES
    )


@pytest.mark.parametrize(
    ("samples", "settings", "error", "says"),
    [
        (
            [*SAMPLES, Sample("toy/3", "q", "late")],
            {},
            ValueError,
            "sample toy/3 has no unwanted spans",
        ),
        ([*SAMPLES, SAMPLES[0]], {}, ValueError, "sample toy/0 occurs twice"),
        (SAMPLES, {"model": object()}, TypeError, "not JSON serializable"),
    ],
)
def test_a_refused_write_leaves_the_old_file(path, samples, settings, error, says):
    old = path.read_bytes()
    with pytest.raises(error, match=says):
        span_file.write_spans(path, samples, settings)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_dies_midway_leaves_the_old_file_and_no_other(path, monkeypatch, fails):
    old = path.read_bytes()

    def die(*_):
        assert path.read_bytes() == old
        assert len(os.listdir(path.parent)) == 2, "the new file grows beside the old one"
        raise KeyboardInterrupt

    monkeypatch.setattr(os, fails, die)
    with pytest.raises(KeyboardInterrupt):
        span_file.write_spans(path, SAMPLES[:1], {})
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_the_file_has_the_permissions_of_any_new_file(path):
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_a_missing_file_is_named(tmp_path):
    assert "cannot read the span file (No such file" in message(tmp_path / "spans.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json\n",
        b"[1, 2]\n",
        b'{"question": "q", "answer": "a"}\n',
        b"\xff\xfe\x00",
    ],
    ids=["empty", "text", "list", "data", "binary"],
)
def test_other_files_are_no_span_files(tmp_path, content):
    (tmp_path / "spans.jsonl").write_bytes(content)
    assert "not a span file" in message(tmp_path / "spans.jsonl")
    with pytest.raises(ValueError, match="not a span file"):
        span_file.read_header(tmp_path / "spans.jsonl")


def test_a_newer_version_asks_for_an_update(path):
    change(path, 1, version=2)
    assert "version 2, this tif reads 1; update tif" in message(path)


def test_a_row_cut_in_the_middle_is_named(path):
    path.write_bytes(path.read_bytes()[:-30])
    text = message(path)
    assert "line 4: want a JSON object" in text
    assert """got '{"id": "toy/2",""" in text


def test_a_file_cut_between_rows_is_noticed(path):
    path.write_text("\n".join(path.read_text().split("\n")[:3]) + "\n")
    assert "the header promises 3 samples, got 2; the file is cut" in message(path, SAMPLES[:1])


@pytest.mark.parametrize("keys", [{"id": None}, {"prompt": 3}, {"answer": ["a"]}])
def test_a_row_without_its_texts_is_named(path, keys):
    change(path, 3, **keys)
    assert "line 3: want a JSON object with id, prompt, answer and unwanted" in message(path)


def test_a_sample_without_row_is_named(path):
    assert "no row for sample toy/7 among its 3 samples" in message(path, [sample(7, "Other.")])


def test_a_second_row_of_a_sample_is_named(path):
    change(path, 4, id="toy/0")
    assert "line 4: sample toy/0 occurs a second time" in message(path)


def test_a_differing_prompt_is_shown_beside_the_samples(path):
    change(path, 2, prompt="Question zero?")
    text = message(path)
    assert (
        "line 2: prompt differs: the file has 'Question zero?', sample toy/0 has 'Question 0?'"
        in text
    )


def test_a_long_differing_answer_is_shown_where_it_differs(path):
    long = "word " * 100
    change(path, 2, answer=long + "tail")
    text = message(path, [sample(0, long + "TAIL " + long)])
    assert "line 2: answer differs" in text
    assert "word tail'" in text
    assert "word TAIL word" in text
    assert len(text) < 500


def test_a_row_that_is_not_asked_for_may_differ(path):
    change(path, 3, answer="Another story.")
    assert span_file.attach_spans(path, blank(SAMPLES[:1])) == SAMPLES[:1]


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 28]],  # the answer has 27 characters
        [[-1, 4]],
        [[4, 4]],
        [[5, 4]],
        [[8, 9], [0, 4]],
        [[0, 5], [4, 9]],
        [[0, 4, 9]],
        [[0.0, 4.0]],
        [[False, True]],
        ["04"],
        [7],
        None,
        "0:4",
    ],
    ids=str,
)
def test_spans_that_do_not_fit_are_named(path, spans):
    change(path, 2, unwanted=spans)
    text = message(path)
    assert "line 2: unwanted: want " in text
    assert f"got {str(spans[-1] if isinstance(spans, list) else spans)!r}" in text
