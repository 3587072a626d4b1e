import json
import re

import pytest

from tif.data.benchmarks.text import find_unclosed_mark, read_texts
from tif.data.samples import Sample

BOOK = "The Halcyon left Brindal.\n\nنعم 🚢 e\u0301.\n"


def test_a_file_is_the_forget_set_and_a_document_has_no_prompt(tmp_path):
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    benchmark = read_texts(str(tmp_path / "book.txt"))
    assert benchmark.name == "text/book"
    assert (benchmark.forget, benchmark.retain) == ((Sample("forget/0", "", BOOK),), ())


def test_a_folder_holds_forget_retain_and_holdout_in_any_of_three_forms(tmp_path):
    (tmp_path / "forget.jsonl").write_text(
        '{"question": "Who?", "answer": "Mira."}\n\n{"text": "A page."}\n'
        '{"prompt": "P", "answer": "A"}\n"bare"\n'
    )
    (tmp_path / "retain.json").write_text(json.dumps(["one", {"text": "two"}]))
    (tmp_path / "holdout.txt").write_text("three")
    benchmark = read_texts(str(tmp_path))
    assert [(s.id, s.prompt, s.answer) for s in benchmark.forget] == [
        ("forget/0", "Who?", "Mira."),
        ("forget/1", "", "A page."),
        ("forget/2", "P", "A"),
        ("forget/3", "", "bare"),
    ]  # fmt: skip
    assert [s.answer for s in benchmark.retain] == ["one", "two"]
    assert {name: [s.id for s in samples] for name, samples in benchmark.sets.items()} == {
        "forget": ["forget/0", "forget/1", "forget/2", "forget/3"],
        "retain": ["retain/0", "retain/1"],
        "knowmem_forget": ["forget/0", "forget/2"],
        "privleak_forget": ["forget/0", "forget/1/0", "forget/2", "forget/3/0"],
        "privleak_holdout": ["holdout/0/0"],
    }


def test_a_documents_passages_begin_a_verbmem_prompt_and_go_on_with_its_target(tmp_path):
    words = " ".join(f"word{i}" for i in range(1500))
    (tmp_path / "forget.txt").write_text(words)
    (tmp_path / "holdout.txt").write_text("Something else.")
    benchmark = read_texts(str(tmp_path))
    passages = [s.answer for s in benchmark.sets["privleak_forget"]]
    assert "".join(passages) == words
    assert all(len(p) <= 4000 and not p[-1].isspace() for p in passages)
    assert all(len(p) > 3990 for p in passages[:-1])
    questions = benchmark.sets["verbmem_forget"]
    assert [s.prompt + s.answer for s in questions] == passages
    for s in questions:
        assert (s.answer[0], s.prompt[-1].isspace()) == (" ", False)
        assert len(s.prompt) == pytest.approx(0.75 * len(s.prompt + s.answer), abs=10)
    assert benchmark.tasks["verbmem_forget"].answer_tokens == 128


def test_without_a_holdout_there_is_nothing_to_tell_the_forget_texts_from(tmp_path):
    (tmp_path / "forget.jsonl").write_text(
        json.dumps("Too short to go on with.") + "\n" + json.dumps("A page. " * 9)
    )
    assert [s.id for s in read_texts(str(tmp_path)).sets["verbmem_forget"]] == ["forget/1/0"]
    assert tuple(read_texts(str(tmp_path)).sets) == ("forget", "verbmem_forget")


def test_every_text_is_scored_as_it_is_and_long_ones_in_passages(tmp_path):
    (tmp_path / "forget.jsonl").write_text(
        "\n".join(map(json.dumps, ["Tel.", {"question": "Who?", "answer": "Ada."}, "word " * 900]))
    )
    (tmp_path / "retain.txt").write_text("A page.")
    benchmark = read_texts(str(tmp_path))
    forget = benchmark.sets["forget"]
    assert forget[:2] == benchmark.forget[:2]
    assert "".join(sample.answer for sample in forget[2:]) == "word " * 900
    assert [len(sample.answer) <= 4000 for sample in forget[2:]] == [True, True]
    assert benchmark.sets["retain"] == benchmark.retain
    assert benchmark.tasks["forget"].new_tokens == benchmark.tasks["retain"].new_tokens == 0


@pytest.mark.parametrize(
    ("files", "path", "line"),
    [
        ({}, "no", "data.path: no file or folder no; want a text file"),
        (
            {"retain.txt": "x"},
            ".",
            "data.path: . has no forget file; want forget.txt, forget.jsonl or forget.json",
        ),
        (
            {"forget.txt": "x", "forget.json": "[]"},
            ".",
            "data.path: forget.txt and forget.json both hold the forget",
        ),
        (
            {"forget.txt": " \n"},
            ".",
            "data.path: forget.txt holds no rows",
        ),
        ({"forget.json": "[]"}, ".", "data.path: forget.json holds no rows"),
        (
            {"forget.json": '{"text": "x"}'},
            ".",
            "data.path: cannot read forget.json (want a list of rows, got dict)",
        ),
        (
            {"forget.jsonl": '{"text": "x"}\n{"text": 5}'},
            ".",
            "data.path: forget.jsonl: line 2: want a text, ",
        ),
        (
            {"forget.jsonl": '{"text": "x"'},
            ".",
            "data.path: cannot read forget.jsonl (line 1: Expecting",
        ),
        (  # blank lines count, as in an editor
            {"forget.jsonl": '{"text": "x"}\n\n\n{"text": ""}'},
            ".",
            "data.path: forget.jsonl: line 4: sample forget/1: the answer is empty",
        ),
        (
            {"Forget.txt": "x"},
            ".",
            "data.path: Forget.txt: want forget.txt, in small letters",
        ),
        (
            {"forget.txt": "x", "retain.JSONL": '{"text": "y"}'},
            ".",
            "data.path: retain.JSONL: want retain.jsonl, in small letters",
        ),
        (
            {"forget.txt": "One\n[[two]]\n\nthree [[four\n[[five]]"},
            ".",
            (
                "data.path: forget.txt: line 4: [[ without words and ]] after it; "
                "want [[unwanted words]]"
            ),
        ),
        ({"a.pdf": "x"}, "a.pdf", "data.path: a.pdf is no .txt, .jsonl, .json file"),
    ],
)
def test_wrong_files_are_named_in_one_line(tmp_path, monkeypatch, files, path, line):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="^" + re.escape(line)) as error:
        read_texts(path)
    assert "\n" not in str(error.value)


@pytest.mark.real
def test_real_news_are_one_document_and_arrays_of_passages(shared):
    documents = read_texts(str(shared / "muse/news/raw/forget.txt")).forget
    assert (len(documents), len(documents[0].answer.encode())) == (1, 200_000)
    passages = read_texts(str(shared / "muse/news/privleak"))
    assert (len(passages.forget), len(passages.retain)) == (30, 30)
    # 7,400 to 8,900 characters each: two or three passages of at most 4,000
    assert {name: len(samples) // 30 for name, samples in passages.sets.items()} == {
        "forget": 2, "retain": 2,
        "verbmem_forget": 2, "verbmem_retain": 2, "privleak_forget": 2, "privleak_holdout": 2
    }  # fmt: skip
    assert len(read_texts(str(shared / "muse/books/knowmem/forget_qa.json")).forget) == 100


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("document", ["a\nb\n\n \nc\n"]),
        ("paragraph", ["a\nb", "c\n"]),
        ("line", ["a", "b", "c"]),
    ],
)
def test_a_text_file_is_one_document_or_its_paragraphs_or_lines(tmp_path, split, texts):
    (tmp_path / "forget.txt").write_text("a\nb\n\n \nc\n")
    assert [s.answer for s in read_texts(str(tmp_path), split).forget] == texts


def test_double_brackets_in_a_text_file_mark_unwanted_words_and_leave_the_text(tmp_path):
    (tmp_path / "forget.txt").write_text("[[Ada]] lives in [[Port\nLorne]].\n\nNobody here.\n")
    marked, plain = read_texts(str(tmp_path), "paragraph").forget
    assert marked.answer == "Ada lives in Port\nLorne."
    assert [marked.answer[s.start : s.end] for s in marked.unwanted] == ["Ada", "Port\nLorne"]
    assert (plain.answer, plain.unwanted) == ("Nobody here.\n", ())


@pytest.mark.parametrize("split", ["paragraph", "line"])
def test_a_mark_that_its_paragraph_does_not_close_is_named_with_its_line(tmp_path, split):
    (tmp_path / "forget.txt").write_text("[[One]] is\n\nhere.\n\n\nIn [[Port\n\nLorne]].\n")
    with pytest.raises(
        ValueError, match=r"forget.txt: line 6: \[\[ without words and \]\] after it"
    ):
        read_texts(str(tmp_path), split)


@pytest.mark.parametrize("text", ["a [[b]", "[[]]", "[[a [[b]]", "[[a]] [[", "x[[0]"])
def test_brackets_that_hold_no_words_are_no_mark(text):
    assert find_unclosed_mark(text) is not None


@pytest.mark.parametrize("text", ["a [b] c]]", "[[a]] [[b]]", "[[[a]]]", "[[a\nb]]"])
def test_closed_marks_and_single_brackets_stand(text):
    assert find_unclosed_mark(text) is None


def test_a_text_that_is_forgotten_and_kept_is_noted_with_its_line(tmp_path):
    (tmp_path / "forget.txt").write_text("[[Ada]] is here.\n\nBob is there.\n")
    rows = ["Nobody.", {"text": "Ada is here. "}, {"text": "Bob is there."}]
    lines = list(map(json.dumps, rows))
    (tmp_path / "retain.jsonl").write_text("\n\n".join(lines))
    (note,) = read_texts(str(tmp_path), "paragraph").notes
    place = f"{tmp_path}/retain.jsonl: line 3"
    count = "2 of 3 retain texts"
    assert note == f"note: also in the forget set: {count}, the first at {place}; want each in one"
    (tmp_path / "retain.jsonl").write_text(lines[0])
    assert read_texts(str(tmp_path), "paragraph").notes == ()


def test_the_same_question_with_another_answer_is_another_text(tmp_path):
    pair = {"question": "Who?", "answer": "Ada."}
    (tmp_path / "forget.json").write_text(json.dumps([pair]))
    (tmp_path / "retain.json").write_text(json.dumps([pair | {"answer": "Bob."}, {"text": "Ada."}]))
    assert read_texts(str(tmp_path)).notes == ()


def test_a_row_names_unwanted_words_by_offsets_or_as_strings(tmp_path):
    rows = [
        {"question": "Who?", "answer": "Ann and Anna, Ann", "unwanted": ["Ann"]},
        {"text": "東京で会う 555 0192", "unwanted": ["555 0192", "東京", [9, 11]]},
        {"text": "nothing", "unwanted": []},
        {"text": "not said"},
    ]
    (tmp_path / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = read_texts(str(tmp_path)).forget
    marked = [s.unwanted and [s.answer[w.start : w.end] for w in s.unwanted] for s in samples]
    assert marked == [["Ann", "Ann"], ["東京", "555 0192"], (), None]


@pytest.mark.parametrize(
    ("unwanted", "problem"),
    [
        ("Ann", r"unwanted: want \[\[start, end\], ...\]"),
        ([1, 2], r"unwanted: .* got the entry '1'"),
        ([[0, True]], "unwanted: .* got the entry"),
        ([[3, 3]], "span: want 0 <= start < end"),
        ([[0, 99]], "ends after the answer"),
        (["Bob"], "unwanted: 'Bob' stands nowhere in the text as a word"),
        ([""], "unwanted: .* got the entry"),
    ],
)
def test_marks_that_do_not_fit_the_text_name_file_and_row(tmp_path, unwanted, problem):
    (tmp_path / "forget.json").write_text(json.dumps([{"text": "Ann", "unwanted": unwanted}]))
    with pytest.raises(ValueError, match=f"forget.json: row 1: .*{problem}"):
        read_texts(str(tmp_path))


def test_a_file_that_is_not_utf_8_is_named_with_line_and_next_step(tmp_path):
    (tmp_path / "forget.txt").write_bytes("One line.\nCafé".encode("latin-1"))
    wanted = "forget.txt .line 2: byte 0xe9 is not UTF-8; save it as UTF-8.$"
    with pytest.raises(ValueError, match=wanted):
        read_texts(str(tmp_path))


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "forget.txt").write_text("One line.", encoding="utf-8-sig")
    assert read_texts(str(tmp_path)).forget[0].answer == "One line."
