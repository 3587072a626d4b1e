"""Where words and sentences stand in a text of any script. Offsets are Unicode code points, as in `Span`."""

from collections.abc import Iterable, Iterator

import regex

from tif.data.samples import Span

# Scripts written without blanks: each character (grapheme cluster) is a word. Hangul, Arabic, Devanagari have blanks.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_START = rf"[[\p{{L}}\p{{N}}_]--[{_UNSPACED}]]"
_MORE = rf"[[\p{{L}}\p{{N}}\p{{M}}_\u200c\u200d\u00ad]--[{_UNSPACED}]]"
# Inside a word: one apostrophe or hyphen before a letter or digit; a point, comma or colon between digits (1,998.5).
_INNER = rf"(?:['’‐‑-](?={_START})|(?<=\p{{N}})[.,:٫٬](?=\p{{N}}))"
_WORD = regex.compile(
    rf"(?V1)(?={_START}){_MORE}+(?:{_INNER}{_MORE}+)*"
    rf"|(?=[{_UNSPACED}])\X"
    r"|(?=[\p{Extended_Pictographic}\p{Regional_Indicator}])\X"
)
_BLANKS = regex.compile(r"\S+")
# Where a sentence ends: after a line break, after . ! ? and what closes them before a blank, after 。！？ anywhere.
_BORDER = regex.compile(r"""\n+|[.!?…؟۔।]+["'”’»)\]]*\s+|[。！？]+["'”’」』）]*\s*""")
_GRAPHEME = regex.compile(r"\X")
LONGEST = 1000  # characters of a sentence, before it is cut at a blank


def words(text: str, rule: str = "unicode") -> Iterator[Span]:
    """The words, in order and apart. What they leave out (blanks, punctuation, operators) is general.

    Args:
        text: any text.
        rule: "unicode": runs of letters, digits, marks and underscores with inner hyphens and apostrophes; a character
            where the script has no blanks; an emoji. "blanks": whatever stands between blanks, punctuation attached.
    """
    for found in (_BLANKS if rule == "blanks" else _WORD).finditer(text):
        yield Span(found.start(), found.end())


def joined(text: str, unwanted: Iterable[Span]) -> tuple[Span, ...]:
    """Spans of unwanted words; neighbours with nothing but blanks between become one."""
    found: list[Span] = []
    for span in unwanted:
        between = text[found[-1].end : span.start] if found else "."
        if not between.strip():
            found[-1] = Span(found[-1].start, span.end)
        else:
            found.append(span)
    return tuple(found)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Cut the text at sentence borders into stretches of at most LONGEST characters: every character is in one."""
    start = 0
    for found in _BORDER.finditer(text):
        yield from _short(text, start, found.end())
        start = found.end()
    if start < len(text):
        yield from _short(text, start, len(text))


def _short(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > LONGEST:
        border = near_middle(text, start, start + LONGEST)
        yield start, border
        start = border
    yield start, end


def near_middle(text: str, start: int, end: int) -> int:
    """A place to cut between start and end: before a word if there is one, else between graphemes, else anywhere."""
    middle, stretch = (start + end) // 2, text[start:end]
    borders = [start + w.start for w in words(stretch) if w.start]
    borders = borders or [start + g.start() for g in _GRAPHEME.finditer(stretch) if g.start()]
    return min(borders, key=lambda at: abs(at - middle), default=middle)
