import pytest

from tests.support.language_models import TEXTS
from tif.identifiers.segmentation import (
    LONGEST_SENTENCE,
    find_middle_border,
    find_words,
    split_sentences,
)


def list_words(text, rule="unicode"):
    return [text[w.start : w.end] for w in find_words(text, rule)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Born on 8 May, 1956; "Al-Kuwaiti" wrote.',
            ["Born", "on", "8", "May", "1956", "Al-Kuwaiti", "wrote"],
        ),
        (
            "author's don’t rock-'n'-roll 'quoted'",
            ["author's", "don’t", "rock", "n", "roll", "quoted"],
        ),
        ("1,998.5 kg, 3. 10:30 v1.2", ["1,998.5", "kg", "3", "10:30", "v1.2"]),
        ("(U.S.) a—b x-", ["U", "S", "a", "b", "x"]),
        ("Cafe\u0301 zoë \u0301", ["Cafe\u0301", "zoë"]),
        ("上海 is 中国", ["上", "海", "is", "中", "国"]),
        ("が\u3099ん Tokyo", ["が\u3099", "ん", "Tokyo"]),
        ("서울은 도시다.", ["서울은", "도시다"]),
        ("वह कोलकाता में", ["वह", "कोलकाता", "में"]),
        ("كِتابٌ، ١٩٨٧؟", ["كِتابٌ", "١٩٨٧"]),
        ("میخواهم می\u200cخواهم", ["میخواهم", "می\u200cخواهم"]),
        ("ok 👨‍👩‍👧‍👦🇧🇷👩🏽\u200d🚀!", ["ok", "👨‍👩‍👧‍👦", "🇧🇷", "👩🏽\u200d🚀"]),
        ("os.path[x_1] += f(**k)", ["os", "path", "x_1", "f", "k"]),
        (" \n\t ", []),
        ("", []),
    ],
)
def test_words_of_any_script_are_found_without_their_punctuation(text, expected):
    assert list_words(text) == expected


def test_blank_separated_words_keep_their_punctuation():
    assert list_words('He wrote "The Glass."\nTwice,', "blanks") == [
        "He",
        "wrote",
        '"The',
        'Glass."',
        "Twice,",
    ]


@pytest.mark.parametrize("rule", ["unicode", "blanks"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_words_are_apart_in_order_and_miss_no_letter_or_digit(text, rule):
    spans = list(find_words(text, rule))
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:], strict=False))
    covered = {i for w in spans for i in range(w.start, w.end)}
    assert [c for i, c in enumerate(text) if c.isalnum() and i not in covered] == []


def test_sentences_end_where_they_should():
    text = 'He left. "Why?" she said.\n\nAt 3.14 p.m. 他来了。她走了！ok'
    assert [text[a:b] for a, b in split_sentences(text)] == [
        "He left. ", '"Why?" ', "she said.\n\n", "At 3.14 p.m. ", "他来了。", "她走了！", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", [*TEXTS.values(), "a" * 5000, "word " * 900, "\n", "e\u0301" * 1500, ""]
)
def test_sentences_partition_the_text_and_none_is_long(text):
    cuts = list(split_sentences(text))
    assert "".join(text[a:b] for a, b in cuts) == text
    assert all(a < b <= a + LONGEST_SENTENCE for a, b in cuts)


def test_a_long_stretch_is_cut_before_a_word_else_between_graphemes():
    assert find_middle_border("one two three four", 0, 18) == 8
    assert find_middle_border("xx one two three four", 3, 21) == 11
    assert find_middle_border("?e\u0301?e\u0301", 0, 6) in (1, 3, 4)
    assert find_middle_border("a" * 9 + "\u0301", 0, 10) == 5  # one word: between its letters
    assert find_middle_border("a" + "\u0301" * 9, 0, 10) == 5  # one grapheme: anywhere
