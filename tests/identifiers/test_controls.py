"""Identifiers that are compared with: all words, none, as many at random."""

import random

import pytest

from tests.support.language_models import TEXTS, sample, unwanted
from tif.config.data import Fictitious
from tif.config.identifier import make_identifier
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.samples import Span, merge_spans
from tif.identifiers import check_models, describe_settings, identify
from tif.identifiers.controls import RandomWords
from tif.identifiers.segmentation import find_words

SAMPLES = generate_fictitious(Fictitious(8, 10, 0.5)).forget


def random_words(samples, share=0.3, seed=0):
    return identify(make_identifier(kind="random", random=RandomWords(share, seed)), samples)


def test_gold_is_what_the_data_came_with():
    assert identify(make_identifier(kind="gold"), SAMPLES) == SAMPLES
    with pytest.raises(
        ValueError,
        match=(
            "identifier.kind: gold, but 1 of 1 forget samples came without .*identifier.kind=words"
        ),
    ):
        identify(make_identifier(kind="gold"), [sample("plain")])


def test_all_and_none_are_the_ends():
    everything, nothing = (
        identify(make_identifier(kind=k), [sample(" Wo, rd.")])[0].unwanted for k in ("all", "none")
    )
    assert everything == (Span(0, 8),)
    assert nothing == ()


def test_random_draws_whole_words_by_seed_and_id_alone():
    once = random_words(SAMPLES)
    assert random_words(SAMPLES) == once
    assert random_words(SAMPLES[3:5]) == once[3:5]
    assert random_words(SAMPLES, seed=1) != once
    same_text = random_words([sample("a b c d e f g h", name=str(n)) for n in range(9)], 0.5)
    assert len({s.unwanted for s in same_text}) > 1
    for s in once:
        starts, ends = zip(*((w.start, w.end) for w in find_words(s.answer)), strict=True)
        assert all(span.start in starts and span.end in ends for span in s.unwanted)


def test_random_leaves_the_global_generator_alone():
    before = random.getstate()
    random_words(SAMPLES)
    assert random.getstate() == before


def test_random_takes_about_its_share():
    drawn = []
    for labelled in random_words(SAMPLES, 0.3):
        for w in find_words(labelled.answer):
            drawn.append(any(s.start <= w.start and w.end <= s.end for s in labelled.unwanted))
    total = sum(len(list(find_words(s.answer))) for s in SAMPLES)
    assert total > 400
    assert 0.25 < sum(drawn) / total < 0.35
    assert all(s.unwanted == () for s in random_words(SAMPLES, 0.0))
    assert all(unwanted(s) for s in random_words(SAMPLES, 1.0))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("kind", ["all", "none", "random"])
def test_controls_give_valid_spans_in_any_script(kind, text):
    (labelled,) = identify(make_identifier(kind=kind), [sample(text)])
    assert labelled.answer == text
    assert labelled.unwanted == merge_spans(labelled.unwanted)
    assert all(word and word == word.strip() for word in unwanted(labelled)) or kind == "all"


def test_settings_name_what_decides_and_nothing_else():
    assert describe_settings(make_identifier(kind="none"), "t") == {"kind": "none"}
    assert describe_settings(make_identifier(kind="random"), "t") == {
        "kind": "random",
        "share": 0.3,
        "seed": 0,
    }
    assert describe_settings(make_identifier(kind="precomputed", path="p"), "t") == {
        "kind": "precomputed", "path": "p", "rule": "complement",
    }  # fmt: skip
    check_models(make_identifier(kind="random"))
