"""What counts as a word, and where sentences end, in a text of any script.

Called by every identifier, by `context_windows` and by `span_comparison`, which counts words.
Offsets are Unicode code points, as in `Span`.
"""

import unicodedata
from collections.abc import Iterator

import regex

from tif.data.samples import Span

# Scripts written without blanks: each character (grapheme cluster) is a word.
# Hangul, Arabic and Devanagari have blanks.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_FIRST = rf"[[\p{{L}}\p{{N}}_]--[{UNSPACED}]]"
_NEXT = rf"[[\p{{L}}\p{{N}}\p{{M}}_\u200c\u200d\u00ad]--[{UNSPACED}]]"
# Inside a word: an apostrophe or hyphen before a letter or digit; a point, comma or colon
# between digits (1,998.5).
_INNER = rf"(?:['’‐‑-](?={_FIRST})|(?<=\p{{N}})[.,:٫٬](?=\p{{N}}))"
_WORD = regex.compile(
    rf"(?V1)(?={_FIRST}){_NEXT}+(?:{_INNER}{_NEXT}+)*"
    rf"|(?=[{UNSPACED}])\X"
    r"|(?=[\p{Extended_Pictographic}\p{Regional_Indicator}])\X"
)
_COMPARED = regex.compile(rf"(?V1)[{UNSPACED}]|[\w--[{UNSPACED}]]+")  # words without inner signs
_BETWEEN_BLANKS = regex.compile(r"\S+")
# A sentence ends after a line break, after . ! ? and what closes them before a blank, and after
# the full-width 。！？ anywhere.
_SENTENCE_END = regex.compile(r"""\n+|[.!?…؟۔।]+["'”’»)\]]*\s+|[。！？]+["'”’」』）]*\s*""")
_GRAPHEME = regex.compile(r"\X")
LONGEST_SENTENCE = 1000  # characters; a longer one is cut before a word


def find_words(text: str, rule: str = "unicode") -> Iterator[Span]:
    """Yield the words of a text in order. All else (blanks, punctuation, operators) is general.

    We use our own pattern because the `regex` package's word borders (flag WORD, Unicode's
    default) cut "Al-Kuwaiti" in two, and join "タワー" to one word but not "東京".

    Args:
        text: any text.
        rule: "unicode" finds runs of letters, digits, marks and underscores with inner hyphens and
            apostrophes; single characters in scripts without blanks; emoji. "blanks" finds what
            stands between blanks, with its punctuation.
    """
    pattern = _BETWEEN_BLANKS if rule == "blanks" else _WORD
    for match in pattern.finditer(text):
        yield Span(match.start(), match.end())


def normalise(text: str) -> str:
    """Return the text's words without case, punctuation and variants of one character (NFKC).

    In scripts without blanks, each character is a word.
    """
    return " ".join(_COMPARED.findall(unicodedata.normalize("NFKC", text).casefold()))


def states(text: str, fact: str) -> bool:
    """Return whether a text contains the words of a normalised fact, whole and in their order."""
    return f" {fact} " in f" {normalise(text)} "


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of sentences that cover the text, LONGEST_SENTENCE at most."""
    start = 0
    for match in _SENTENCE_END.finditer(text):
        yield from _cut_long_sentence(text, start, match.end())
        start = match.end()
    if start < len(text):
        yield from _cut_long_sentence(text, start, len(text))


def _cut_long_sentence(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > LONGEST_SENTENCE:
        border = find_middle_border(text, start, start + LONGEST_SENTENCE)
        yield start, border
        start = border
    yield start, end


def find_middle_border(text: str, start: int, end: int) -> int:
    """Return the best place near the middle to cut text[start:end].

    Before a word if there is one, else between two graphemes, else anywhere.
    """
    middle = (start + end) // 2
    stretch = text[start:end]
    borders = [start + word.start for word in find_words(stretch) if word.start]
    if not borders:
        matches = _GRAPHEME.finditer(stretch)
        borders = [start + match.start() for match in matches if match.start()]
    return min(borders, key=lambda border: abs(border - middle), default=middle)
