import dataclasses
import json
import re

import pytest

from tests.support import hub_cache
from tests.support.muse_corpus import FILES, corpus
from tif.data.benchmarks.muse import KNOWMEM, PRIVLEAK, VERBMEM, read_muse
from tif.data.samples import Sample


def test_a_folder_has_texts_to_forget_to_keep_and_five_evaluation_sets(tmp_path):
    benchmark = read_muse(corpus(tmp_path / "news"))
    assert benchmark.name == "muse/news"
    assert [s.answer for s in benchmark.forget] == [
        FILES["raw/forget.txt"]
    ]  # article borders cannot be recovered
    assert [(s.id, s.prompt, s.answer) for s in benchmark.retain] == [
        ("raw/retain1/0", "", "kept"), ("raw/retain1/1", "", "kept too")
    ]  # fmt: skip
    assert [s.answer for s in benchmark.background] == [FILES["raw/retain2.txt"]]
    assert {
        name: [(s.prompt, s.answer) for s in samples] for name, samples in benchmark.sets.items()
    } == {
        "verbmem_forget": [("It was ", "late. ")],  # blanks at the edges stay
        "knowmem_forget": [("Who?", "Mira.")],
        "knowmem_retain": [("Where?", "Here."), ("Where?", "Here")],
        "privleak_forget": [("", "one"), ("", "two")],
        "privleak_holdout": [("", "three")],
    }
    assert benchmark.sets["knowmem_retain"][1].id == "knowmem_retain/1"


def test_a_question_comes_after_its_sets_examples_and_other_sets_have_none(tmp_path):
    tasks = read_muse(corpus(tmp_path)).tasks
    expected = "Question: When?\nAnswer: 1472\n\nQuestion: Why?\nAnswer: So.\n\n"
    assert tasks["knowmem_forget"].prefix == expected
    assert tasks["knowmem_retain"].prefix == "Question: What?\nAnswer: That.\n\n"
    assert (tasks["verbmem_forget"], tasks["privleak_holdout"]) == (VERBMEM, PRIVLEAK)
    assert tasks["knowmem_forget"].template == "Question: {prompt}\nAnswer: "


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ("1472\n\nQuestion: Who?", "1472"),
        ("1472\nQuestion: Who?", "1472"),
        ("1472 Question: Who?", "1472 "),
        ("in\n1472", "in\n1472"),
        ("", ""),
    ],
)
def test_an_answer_ends_at_an_empty_line_or_the_next_question(generation, expected):
    assert KNOWMEM.cut(generation) == expected


def test_other_forget_splits_have_texts_of_their_own_and_the_same_evaluation_sets(tmp_path):
    plain, benchmark = read_muse(corpus(tmp_path)), read_muse(str(tmp_path), "scal_2")
    assert [s.answer for s in benchmark.forget] == ["one", "more"]
    assert benchmark.name == f"{plain.name}/scal_2"
    assert (benchmark.sets, benchmark.retain) == (plain.sets, plain.retain)


def test_without_training_the_texts_to_forget_are_not_asked_for(tmp_path):
    path = corpus(tmp_path, **{"raw/forget.txt": None})
    assert read_muse(path, with_training=False).forget == ()
    with pytest.raises(
        ValueError, match=r"has no raw/forget.json or .txt; want the texts to forget there"
    ):
        read_muse(path)


def test_what_a_folder_does_not_hold_is_left_out(tmp_path):
    names = [name for name in FILES if name.startswith(("privleak", "verbmem", "raw/retain"))]
    benchmark = read_muse(corpus(tmp_path, **dict.fromkeys(names)))
    assert tuple(benchmark.sets) == ("knowmem_forget", "knowmem_retain")
    assert (benchmark.retain, benchmark.background) == ((), ())


@pytest.mark.parametrize(
    ("changes", "split", "line"),
    [
        ({}, "forget01", "data.split: MUSE has forget, scal_1, "),
        ({}, "sust_3", "has no sust/forget_3.json or .txt"),
        (dict.fromkeys(FILES), "forget", "has no verbmem/, knowmem/ or privleak/ in it"),
        (
            {"knowmem/forget_qa_icl.json": None},
            "forget",
            "knowmem/forget_qa has no forget_qa_icl beside it",
        ),
        ({"privleak/holdout.json": []}, "forget", "privleak/holdout holds no rows"),
        ({"verbmem/forget.json": '[{"prompt": "a", '}, "forget", "forget.json (Expecting"),
        (
            {"verbmem/forget.json": [{"prompt": "a"}]},
            "forget",
            "verbmem/forget: row 1: want a text as gt, got only prompt",
        ),
        (
            {"knowmem/forget_qa.json": [{"question": "a", "answer": 7}]},
            "forget",
            "row 1: want a text as answer, got 7",
        ),
        (
            {"privleak/forget.json": ["x", 3]},
            "forget",
            "privleak/forget: row 2: want an object, got 3",
        ),
        ({"privleak/forget.json": {"a": "b"}}, "forget", "want a list of rows, got dict"),
        (
            {"raw/forget.txt": " \n"},
            "forget",
            "raw/forget: line 1: sample raw/forget/0: the answer is empty",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line_that_names_it(tmp_path, changes, split, line):
    tmp_path.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        read_muse(corpus(tmp_path, **changes), split)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("data.")


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(
        ValueError, match="no folder .*; want a folder of MUSE's files or a hub name"
    ):
        read_muse(str(tmp_path / "no" / "news"))


def test_the_hubs_parquet_files_become_the_same_samples_as_the_files(tmp_path, monkeypatch):
    cache = hub_cache.use(monkeypatch, tmp_path / "cache")
    tables = {}
    for name, content in FILES.items():
        tables[name.rpartition(".")[0]] = content if isinstance(content, list) else [content]
    folder = hub_cache.write_muse_data_set(tmp_path / "downloaded", tables)
    hub_cache.add(cache, "muse-bench/MUSE-News", folder, "dataset")
    expected = read_muse(corpus(tmp_path / "news"))
    assert read_muse("muse-bench/MUSE-News") == expected
    # tif download muse news to=FOLDER
    assert dataclasses.replace(read_muse(str(folder)), name=expected.name) == expected


@pytest.mark.real
def test_the_real_files_have_muses_numbers_of_samples(shared):
    news, books = (
        read_muse(str(shared / "muse/news")),
        read_muse(str(shared / "muse/books"), with_training=False),
    )
    assert {name: len(samples) for name, samples in news.sets.items()} == {
        "verbmem_forget": 20, "knowmem_forget": 100, "knowmem_retain": 100, "privleak_forget": 30,
        "privleak_holdout": 30,
    }  # fmt: skip
    assert {name: len(samples) for name, samples in books.sets.items()} == {
        "knowmem_forget": 100,
        "knowmem_retain": 100,
    }
    raw = json.loads((shared / "muse/news/knowmem/forget_qa_icl.json").read_text())
    prefix = news.tasks["knowmem_forget"].prefix
    assert prefix.count("Question: ") == len(raw) == 10
    assert prefix.startswith(f"Question: {raw[0]['question']}\nAnswer: {raw[0]['answer']}\n\n")
    assert news.sets["knowmem_forget"][0] == Sample(
        "knowmem_forget/0", raw_first(shared)["question"], "1472"
    )
    assert len(news.forget[0].answer.encode()) == 200_000


def raw_first(shared):
    return json.loads((shared / "muse/news/knowmem/forget_qa.json").read_text())[0]
