import random
import re
import unicodedata

import pytest

from tests.support.hangs import count_calls, no_hang
from tif.data.samples import Sample, Span, merge_spans
from tif.identifiers.string_search import find_strings, grow_spans, normalize


def texts(wanted, text):
    """The places found, as text, and what was not found."""
    spans, missing = find_strings(wanted, text)
    return [text[s.start : s.end] for s in spans], list(missing)


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("Oslo", "Oslo, not Oslos; Oslo's and Oslo-born.", ["Oslo", "Oslo", "Oslo"]),
        ("Kuwait", "Al-Kuwaiti was born in Kuwait.", ["Kuwait"]),
        ("Kuwaiti", "Al-Kuwaiti was born in Kuwait.", ["Kuwaiti"]),
        ("oslo", "Oslo", []),  # case counts
        ("foo", "foo_bar + foo", ["foo"]),
        ("19", "1998 and 19", ["19"]),
        ("Ph.D.", "a Ph.D. in 1998", ["Ph.D."]),
        ("C++", "knows C++ and C", ["C++"]),
        ('"The Sea"', "wrote “The Sea” and «The Sea»", ["“The Sea”", "«The Sea»"]),
        ("O'Neil", "O’Neil met O‘Neil and OʼNeil", ["O’Neil", "O‘Neil", "OʼNeil"]),
        ("well-known", "a well\u2011known and well–known man", ["well\u2011known", "well–known"]),
        ("New York", "New\u00a0York, New\n  York", ["New\u00a0York", "New\n  York"]),
        ("office", "the o\ufb03ce", ["o\ufb03ce"]),  # one ligature of three letters
        ("ce", "the o\ufb03ce", []),
        ("Kindle", "a Kindle™", ["Kindle"]),  # NFKC makes "KindleTM" of it
        ("1", "½ and 1", ["1"]),
        ("5 °C", "at 5 ℃", ["5 ℃"]),
        ("ABC", "ＡＢＣ", ["ＡＢＣ"]),
        ("Zoë", "Zoe\u0308 and Zoë, not Zoe", ["Zoe\u0308", "Zoë"]),
        ("Zoe", "Zoe\u0308 and Zoe", ["Zoe"]),
        ("q", "q\u0303 and q", ["q"]),  # an accent without a composed letter
        (
            "한국",
            "\u1112\u1161\u11ab\u1100\u116e\u11a8 한국",
            ["\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"],
        ),
        ("Zoë", "🎈🎈 Zoë", ["Zoë"]),
        ("🎈", "🎈Zoë🎈", ["🎈", "🎈"]),
        ("❤", "I ❤\ufe0f it", ["❤\ufe0f"]),
        ("القاهرة", "ولد في القاهرة عام ١٩٩٨.", ["القاهرة"]),
        ("قاهرة", "ولد في القاهرة.", []),  # inside a word
        ("محمد", "كان مُحَمَّد هنا ومحمد محمد", ["محمد"]),  # neither with vowel signs nor with a prefix
        ("שלום", "אמר \u200fשלום\u200f לכם", ["שלום\u200f"]),
        ("می\u200cروم", "من می\u200cروم", ["می\u200cروم"]),
        ("می", "من می\u200cروم", []),  # a joiner is no border
        ("Vasquez", "Vas\u00adquez", ["Vas\u00adquez"]),
        ("Vas", "Vas\u00adquez", []),
        ("北京", "他出生于北京。", ["北京"]),
        ("東京", "彼は東京で生まれた", ["東京"]),
        ("กรุงเทพ", "เกิดที่กรุงเทพ", ["กรุงเทพ"]),
        ("น", "น้ำ น", ["น"]),  # not without its tone mark and vowel
        ("👩", "👩🏽\u200d🚀 👩", ["👩"]),  # not inside a longer emoji
        ("ｽ", "ｽﾀ", ["ｽ"]),  # half-width katakana is written without blanks
        ("", "Oslo", []),
    ],
)
def test_a_string_is_found_at_word_borders_whatever_the_typography(wanted, text, expected):
    actual, missing = texts([wanted], text)
    assert actual == expected
    assert missing == ([] if expected else [wanted])


def test_overlapping_words_become_one_span():
    assert texts(["New York", "York City", "City"], "in New York City") == (["New York City"], [])
    assert texts(["ana ana"], "ana ana ana") == (["ana ana ana"], [])


def test_spans_are_sorted_and_count_code_points():
    spans, missing = find_strings(["Oslo", "Zoë", "Lima"], "🎈 Zoë in Oslo, Zoë")
    assert spans == (Span(2, 5), Span(9, 13), Span(15, 18))
    assert missing == ("Lima",)


@pytest.mark.parametrize(
    "text", ["plain text", "o\ufb03ce ½ ℃ Zoe\u0308 \u1112\u1161\u11ab", "🎈 مُحَمَّد", "①²ﾊﾞ"]
)
def test_folding_is_nfkc_of_the_whole_and_its_pieces_cover_the_text(text):
    folded = normalize(text)
    assert folded.text == unicodedata.normalize("NFKC", text)
    assert [s.start for s in folded.spans] == [0, *(s.end for s in folded.spans[:-1])]
    assert folded.spans[-1].end == len(text)


def test_a_long_text_is_folded_in_linear_time():
    text = "Łucja Mbekani’s o\ufb03ce " * 10_000
    spans, _ = find_strings(["Mbekani"], text)
    assert len(spans) == 10_000


def plain_places(string, text):
    """Return the places of a string without blanks at its edges, character by character."""

    def is_border(place):
        around = text[place - 1 : place + 1] if place else ""
        return len(around) < 2 or not all(c.isascii() and (c.isalnum() or c == "_") for c in around)

    starts = [i for i in range(len(text)) if text.startswith(string, i)]
    ends = [(i, i + len(string)) for i in starts]
    return merge_spans(Span(i, end) for i, end in ends if is_border(i) and is_border(end))


def test_all_places_of_strings_that_repeat_themselves_are_those_of_a_plain_loop():
    rng, places = random.Random(0), 0
    for _ in range(3000):
        text = "".join(rng.choice("aab -京") for _ in range(rng.randrange(1, 40)))
        text = re.sub(" +", " ", text)
        start, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        string = text[start:end].strip()
        if string:
            spans = plain_places(string, text)
            assert find_strings([string], text)[0] == spans, (string, text)
            places += len(spans)
    assert places > 1000


@pytest.mark.parametrize("unit", ["a ", "a", "京", "e\u0301", "a-", "ab "])
def test_strings_and_texts_that_repeat_themselves_take_a_step_a_character(unit):
    """Up to 20 calls a character; a step for each string at each place took 90 to 330."""
    text = unit * (4000 // len(unit))
    strings = [(unit * n).strip() for n in range(1, 350 // len(unit), 3)]
    characters = len(text) + sum(map(len, strings))
    with no_hang():
        assert count_calls(find_strings, strings, text) < 40 * characters


def test_an_entity_that_is_unwanted_in_one_answer_is_unwanted_in_all():
    samples = [
        Sample("1", "q", "Ann Ohm was a baker in Oslo.", (Span(0, 7), Span(14, 19))),
        Sample("2", "q", "The baker of Oslo knew Ann Ohm and Annette.", ()),
        Sample("3", "q", "她住在大理。", (Span(3, 5),)),
        Sample("4", "q", "大理很远。", None),
    ]
    grown = [[s.answer[u.start : u.end] for u in s.unwanted] for s in grow_spans(samples)]
    # "baker" has no capital letter, "Oslo" was unwanted nowhere.
    assert grown == [["Ann Ohm", "baker"], ["Ann Ohm"], ["大理"], ["大理"]]
