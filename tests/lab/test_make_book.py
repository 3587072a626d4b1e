"""The book of docs/results/breadth.md, as lab/make_book.py makes it."""

import pytest

from lab import make_book
from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.benchmarks.text import read_texts

pytestmark = pytest.mark.slow


def test_a_book_has_five_parts_and_every_fact_but_the_name_is_marked_in_each(tmp_path):
    make_book.main(str(tmp_path), "3", "2")
    benchmark = read_texts(str(tmp_path))
    (book,), (other,) = benchmark.forget, benchmark.retain
    names = [chapter.partition(".")[0] for chapter in book.answer.splitlines()]
    assert names == names[:3] * 5
    assert len(set(names)) == 3
    settings = Fictitious(authors=5, questions_per_author=20, forget_share=0.6, wordings=5)
    generated = generate_fictitious(settings)
    for document, samples in ((book, generated.forget), (other, generated.retain)):
        facts = []
        for sample in samples:
            if sample.id.split("/")[2] != "0":  # the name
                facts += [sample.answer[span.start : span.end] for span in sample.unwanted]
        marked = [document.answer[span.start : span.end] for span in document.unwanted]
        assert sorted(marked) == sorted(facts)
