"""What shares a subject: by the ids of every benchmark, and by a column of one's own data."""

import json

import pytest

from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.benchmarks.text import read_texts
from tif.data.samples import Sample, fingerprint, group_of_id


@pytest.mark.parametrize(
    ("sample_id", "group"),
    [
        ("tofu/3960", "author/198"),  # forget01 has the last two of 200 authors
        ("tofu/3979", "author/198"),
        ("tofu/3980", "author/199"),
        ("tofu/holdout10/20", "author/holdout10/1"),
        ("real_authors/7", None),
        ("fictitious/author36/4/way2", "author/36"),
        ("lume/59716187sc1", "document/59716187"),
        ("lume/59716187qa2", "document/59716187"),
        ("verbmem_forget/3", "document/verbmem_forget/3"),
        ("knowmem_forget/3", None),
        ("forget/0/12", "document/forget/0"),
        ("forget/0", None),
    ],
)
def test_the_id_of_a_benchmarks_sample_says_what_it_shares_a_subject_with(sample_id, group):
    assert group_of_id(sample_id) == group
    assert Sample(sample_id, "Who?", "Me.").subject == group


def test_every_question_about_an_invented_author_is_one_group_in_all_sets():
    benchmark = generate_fictitious(Fictitious(authors=10, wordings=5))
    forgotten = {sample.subject for sample in benchmark.forget}
    assert forgotten == {"author/09"}
    for name in ("forget", "forget_reworded", "forget_implied"):
        assert {sample.subject for sample in benchmark.sets[name]} == forgotten
    assert len({sample.subject for sample in benchmark.retain}) == 9


def test_passages_of_a_document_are_a_group_and_a_column_names_others(tmp_path):
    rows = [
        {"question": "Q?", "answer": "A.", "group": "ada"},
        {"question": "R?", "answer": "B.", "group": "ada"},
        {"question": "S?", "answer": "C."},
        {"text": "word " * 2000},
    ]
    (tmp_path / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sets = read_texts(str(tmp_path)).sets
    assert [sample.subject for sample in sets["knowmem_forget"]] == ["group/ada", "group/ada", None]
    passages = [sample.subject for sample in sets["forget"][3:]]
    assert passages == ["document/forget/3"] * 3
    (tmp_path / "forget.jsonl").write_text(json.dumps({"text": "a b", "group": ["x"]}))
    with pytest.raises(ValueError, match=r"line 1: group: want a text, got \['x'\]"):
        read_texts(str(tmp_path))


def test_another_group_is_another_data_set():
    plain, named = Sample("1", "Q?", "A."), Sample("1", "Q?", "A.", group="group/ada")
    assert fingerprint([plain]) != fingerprint([named])
