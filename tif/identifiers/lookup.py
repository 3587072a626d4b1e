"""Where the words that someone names stand in a text: a literal search that forgives typography, nothing else.

Text and word are compared after NFKC, with all quotation marks alike, all hyphens and dashes alike, any run of blanks
as one blank, and without invisible characters (bidi marks, soft hyphens, variation selectors). Case counts.
"""

import bisect
import dataclasses
import functools
import unicodedata
from collections.abc import Iterable, Iterator

from tif.data.samples import Span
from tif.identifiers.span_file import merge

_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2035\u00b4\u0060\u02bc\uff07", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\uff02", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-")
)
# Scripts written without blanks between words: Thai, Lao, Burmese, Khmer, kana, Han. Any two letters may be two words.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def find(wanted: Iterable[str], text: str) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """All places of each wanted string at word borders.

    A border lies where two letters, digits, marks or underscores do not meet: "Oslo" is in "Oslo's" and in
    "Oslo-born", not in "Oslos". Scripts without blanks have a border between any two letters. No place begins or ends
    inside what the text writes as one character (the "1" of "½", the "f" of a ligature "fi").

    Returns:
        Merged spans in `text`'s own code points, and the strings that stand nowhere, each once, as given.
    """
    folded, spans, missing = fold(text), list[Span](), dict[str, None]()
    for string in dict.fromkeys(wanted):
        places = list(_places(fold(string).text.strip(), folded, text))
        spans += places
        if not places:
            missing[string] = None
    return merge(spans), tuple(missing)


def joined(text: str, at: int) -> bool:
    """Whether the characters before and after position `at` belong to one word."""
    if not 0 < at < len(text):
        return False
    after = text[at]
    if _is_mark(after) or _is_invisible(after):
        return True  # an accent belongs to its letter in every script
    last = at - 1
    while last and _is_invisible(text[last]) and text[last] != "\u200b":  # a zero-width blank does end a word
        last -= 1
    before = text[last]
    return _in_word(before) and _in_word(after) and not (_is_unspaced(before) or _is_unspaced(after))


@dataclasses.dataclass(frozen=True)
class Folded:
    """A text made comparable, and the way back.

    Attributes:
        text: the comparable text.
        at: where in `text` each piece begins, ascending: a piece is what one character or accented letter became.
        spans: the piece's place in the original, one for each of `at`.
    """

    text: str
    at: list[int]
    spans: list[Span]

    def original(self, start: int, end: int) -> Span | None:
        """The original's characters behind text[start:end]; None if they begin or end inside a piece."""
        first, last = bisect.bisect_left(self.at, start), bisect.bisect_left(self.at, end)
        ends = self.at[last] if last < len(self.at) else len(self.text)
        if first == last or self.at[first] != start or ends != end:
            return None
        return Span(self.spans[first].start, self.spans[last - 1].end)


@functools.lru_cache(maxsize=16)  # the votes on one answer follow each other
def fold(text: str) -> Folded:
    """The comparable text, with offsets back to the original's code points."""
    parts, at, spans, length = list[str](), list[int](), list[Span](), 0
    for start, end in _pieces(text):
        part = _normal(text[start:end])
        if not part:  # invisible: part of what stands before it
            if spans:
                spans[-1] = Span(spans[-1].start, end)
            continue
        if part.isspace():
            if parts and parts[-1] == " ":
                spans[-1] = Span(spans[-1].start, end)
                continue
            part = " "
        parts.append(part)
        at.append(length)
        spans.append(Span(start, end))
        length += len(part)
    return Folded("".join(parts), at, spans)


def _places(needle: str, folded: Folded, text: str) -> Iterator[Span]:
    """Each place of the comparable `needle`, also where places overlap."""
    start = folded.text.find(needle) if needle else -1
    while start >= 0:
        span = folded.original(start, start + len(needle))
        if span and not joined(text, span.start) and not joined(text, span.end):
            yield span
        start = folded.text.find(needle, start + 1)


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Cut the text where normalising left and right of the cut gives the same as normalising across it."""
    start = 0
    for at in range(1, len(text) + 1):
        if at < len(text) and (unicodedata.combining(text[at]) or _composes(text[start:at], text[at])):
            continue
        yield start, at
        start = at


def _composes(piece: str, char: str) -> bool:
    """Whether a character that is no accent melts into what stands before it: the vowels and finals of Hangul, ..."""
    if char < "\u0300":
        return False
    return unicodedata.normalize("NFKC", piece + char) != unicodedata.normalize("NFKC", piece) + unicodedata.normalize(
        "NFKC", char
    )


def _normal(piece: str) -> str:
    normal = unicodedata.normalize("NFKC", piece.translate(_ALIKE)).translate(_ALIKE)
    return "".join(char for char in normal if not _is_invisible(char))


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or "\ufe00" <= char <= "\ufe0f"


def _is_mark(char: str) -> bool:
    return char >= "\u0300" and unicodedata.category(char).startswith("M")


def _in_word(char: str) -> bool:
    return char.isalnum() or char == "_" or _is_mark(char)


def _is_unspaced(char: str) -> bool:
    return char >= "\u0e00" and any(low <= ord(char) <= high for low, high in _UNSPACED)
