import tracemalloc

import pytest

from tests.support.language_models import SENTENCES, TEXTS, sample, unwanted
from tif.identifiers.context_windows import (
    WINDOWS_AT_ONCE,
    label_words,
    make_windows,
    split_into_passages,
)

BOOK = " ".join(f"{s} {n}." for n, s in enumerate(SENTENCES * 8))


def by_words(texts):
    """A tokenizer of blank-separated words."""
    return [len(t.split()) for t in texts]


def by_characters(texts):
    return [len(t) for t in texts]


def no_prompt(sample):
    return ""


def all_unwanted(batch, done):
    return [[True] * len(w.words) for w in batch]


@pytest.mark.parametrize("text", [BOOK, *TEXTS.values(), "a" * 4000, "e\u0301" * 700, "x"])
@pytest.mark.parametrize("count", [by_words, by_characters])
@pytest.mark.parametrize("budget", [1, 7, 40, 100_000])
def test_every_character_is_labelled_once_and_windows_fit(text, count, budget):
    passages = list(split_into_passages(text, count, budget))
    assert "".join(text[c.start : c.end] for c in passages) == text
    assert [c.start for c in passages[1:]] == [c.end for c in passages[:-1]]
    for c in passages:
        assert 0 <= c.shown_start <= c.start < c.end <= c.shown_end <= len(text)
        assert count([text[c.shown_start : c.shown_end]])[0] <= budget + 1


def test_a_text_that_fits_is_one_window():
    (only,) = split_into_passages(BOOK, by_words, len(BOOK.split()))
    assert (only.shown_start, only.shown_end, only.start, only.end) == (0, len(BOOK), 0, len(BOOK))


def test_context_stands_on_both_sides():
    passages = list(split_into_passages(BOOK, by_words, 60))
    assert len(passages) > 3
    assert all(c.shown_start < c.start for c in passages[1:])
    assert all(c.end < c.shown_end for c in passages[:-1])
    assert (passages[0].shown_start, passages[-1].shown_end) == (0, len(BOOK))
    for c in passages:
        assert c.shown_start == 0 or BOOK[c.shown_start - 1] == " "  # at sentence borders
        assert c.end == len(BOOK) or BOOK[c.end - 2 : c.end] == ". "


def test_a_window_shows_the_prompt_and_its_words_are_where_it_says():
    s = sample(BOOK, "Who?")
    for w in make_windows([s], lambda s: f"{s.prompt} ", by_words, 30, "unicode"):
        assert w.text.startswith("Who? ")
        for word in w.words:
            there = w.text[word.start : word.end]
            assert there == s.answer[word.start + w.shift : word.end + w.shift]
            assert there.isalnum()


def test_a_prompt_too_long_loses_its_beginning_and_leaves_half_of_the_window():
    (w,) = make_windows(
        [sample("An answer.", "x")], lambda s: "begin " * 500 + "end ", by_words, 20, "unicode"
    )
    assert w.text.endswith("begin end An answer.")
    assert len(w.text.split()) <= 12


@pytest.mark.parametrize("text", [BOOK, *TEXTS.values()])
def test_a_judge_of_all_words_sees_each_once(text):
    seen = []

    def judge(batch, done):
        assert len(batch) <= WINDOWS_AT_ONCE
        seen.extend(w.text[x.start : x.end] for w in batch for x in w.words)
        return [[True] * len(w.words) for w in batch]

    uncut = label_words(
        [sample(text)],
        make_windows([sample(text)], no_prompt, by_words, 10_000, "unicode"),
        judge,
        "",
    )
    expected, seen[:] = list(seen), []
    cut = label_words(
        [sample(text)], make_windows([sample(text)], no_prompt, by_words, 16, "unicode"), judge, ""
    )
    assert seen == expected
    assert cut == uncut


def test_verdicts_land_on_their_samples():
    samples = [
        sample("Mira Dell, Oslo.", "", "a"),
        sample("no names", "", "b"),
        sample(BOOK, "", "c"),
    ]

    def capital(batch, done):
        return [[w.text[x.start].isupper() for x in w.words] for w in batch]

    a, b, c = label_words(
        samples, make_windows(samples, no_prompt, by_words, 20, "unicode"), capital, ""
    )
    assert unwanted(a) == ["Mira Dell", "Oslo"]
    assert unwanted(b) == []
    assert len(unwanted(c)) == sum(w[0].isupper() for w in BOOK.split())


def test_a_document_is_read_as_it_goes():
    """The judge has seen the first windows before the last ones are cut."""
    pulled, read = [], []

    def counting(texts):
        read.append(sum(by_words(texts)))
        return by_words(texts)

    def stream():
        for w in make_windows([sample(BOOK * 20)], no_prompt, counting, 20, "unicode"):
            pulled.append(w)
            yield w

    ahead = []

    def judge(batch, done):
        ahead.append((len(pulled), sum(read)))
        return [[False] * len(w.words) for w in batch]

    label_words([sample(BOOK * 20)], stream(), judge, "")
    assert [windows for windows, _ in ahead[:2]] == [WINDOWS_AT_ONCE, 2 * WINDOWS_AT_ONCE]
    assert len(ahead) > 10
    assert ahead[0][1] < ahead[-1][1] / 5


def test_memory_beyond_the_spans_that_come_out_does_not_grow_with_the_text():
    """2,500 and 40,000 words: what label holds at its peak and no more at its end."""
    passing = []
    for times in (5, 80):
        samples = [sample(BOOK * times)]
        tracemalloc.start()
        labelled = label_words(
            samples, make_windows(samples, no_prompt, by_words, 20, "unicode"), all_unwanted, ""
        )
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(labelled[0].unwanted) > 100 * times
        passing.append(peak - held)
    assert passing[1] < 1.5 * passing[0]
