"""Invented authors in the languages of lab/languages: exact spans, as many as in English."""

import pathlib
import re

import pytest

from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious

pytestmark = pytest.mark.slow


def file_of(language):
    return str(pathlib.Path(__file__).parents[2] / "lab" / "languages" / f"{language}.yaml")


def by_id(benchmark):
    return {sample.id: sample for sample in benchmark.forget + benchmark.retain}


LANGUAGES = ("de", "zh", "ar", "python")


@pytest.mark.parametrize(
    ("language", "id", "answer", "facts"),
    [
        ("de", "36/0", "Der volle Name des Autors ist Łucja Mbekani.", ["Łucja Mbekani"]),
        ("zh", "36/7", "南宫南乔常说，家里的父亲是园丁。", ["园丁"]),
        (
            "ar",
            "37/4",
            "منح الكاتب أيهم الشراع وسام الصقر والجرانيت تقديرا لأعماله.",
            ["وسام الصقر والجرانيت"],
        ),
        (
            "python",
            "39/5",
            (
                'author = {"id": "Ximena Abendrot", "hero": "amateur astronomer", "quest": '
                '"refuses to grow old"}'
            ),
            ["amateur astronomer", "refuses to grow old"],
        ),
    ],
)
def test_spans_are_exact_without_blanks_from_right_to_left_and_in_code(language, id, answer, facts):
    sample = by_id(generate_fictitious(Fictitious(language=file_of(language))))[
        f"fictitious/author{id}"
    ]
    assert sample.answer == answer
    assert [answer[span.start : span.end] for span in sample.unwanted] == facts


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_language_has_as_many_samples_and_states_each_fact_in_the_paraphrase_too(language):
    english = generate_fictitious(Fictitious(authors=20, questions_per_author=20))
    benchmark = generate_fictitious(
        Fictitious(authors=20, questions_per_author=20, language=file_of(language))
    )
    assert [s.id for s in benchmark.forget] == [s.id for s in english.forget]
    for sample in (*benchmark.forget, *benchmark.retain):
        assert sample.unwanted
        assert len(set(sample.perturbed_answers)) == 5
        for span in sample.unwanted:
            fact = sample.answer[span.start : span.end]
            assert fact in sample.paraphrased_answer
            assert fact not in sample.prompt
            assert not re.search(r"[{}\[\]]", fact)
    for name in ("real_authors", "world_facts"):
        assert all(len(set(s.perturbed_answers) - {s.answer}) == 3 for s in benchmark.sets[name])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"wordings": 4}, "data.fictitious.wordings: must be from 1 to 3, got 4"),
        ({"interleaved": 0.5}, "data.fictitious.interleaved: goes with one wording, of English"),
    ],
)
def test_what_only_english_has_is_refused(keys, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        generate_fictitious(Fictitious(language=file_of("zh"), **keys))
