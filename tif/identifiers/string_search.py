"""Find where given strings stand in a text: a literal search that forgives typography, not case.

Called by the generative identifier, whose model names words instead of offsets, and for
`identifier.grow`. Text and string are compared after NFKC, with all quotation marks alike, all
hyphens and dashes alike, any run of blanks as one blank, and without invisible characters (bidi
marks, soft hyphens, variation selectors).
"""

import bisect
import dataclasses
import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import regex

from tif.data.samples import Sample, Span, merge_spans
from tif.identifiers.segmentation import UNSPACED

_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u2035\u00b4\u0060\u02bc\uff07", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\uff02", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-")
)
_GRAPHEME = regex.compile(r"\X")
LONGEST_GRAPHEME = 64  # code points; a longer one is no writing, and NFKC takes quadratic time
_ENTITY = regex.compile(r"\p{Lu}|\p{Lt}|\p{Lo}|\p{N}")
_INVISIBLE = regex.compile(r"[\p{Cf}\ufe00-\ufe0f]")
_WORD_CHARACTER = rf"[[\p{{L}}\p{{N}}\p{{M}}_]--[{UNSPACED}]]"
# A place inside a word: a word character on either side, invisible ones between them, but for the
# zero-width blank, which ends a word. In scripts without blanks any two letters may be two words.
_INSIDE_WORD = regex.compile(
    rf"(?V1)(?<={_WORD_CHARACTER}[[\p{{Cf}}\ufe00-\ufe0f]--\u200b]*)(?={_WORD_CHARACTER})"
)


def find_strings(strings: Iterable[str], text: str) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return all places of each string at word borders, and the strings that stand nowhere.

    A border lies where two letters, digits, marks or underscores do not meet: "Oslo" is in "Oslo's"
    and in "Oslo-born", not in "Oslos". Scripts without blanks have a border between any two
    letters. No place begins or ends inside what the text writes as one character (the "1" of "½",
    the "f" of a ligature "fi").

    Returns:
        Merged spans in the code points of `text`, and the missing strings, each once, as given.
    """
    borders = _find_borders(text)
    spans: list[Span] = []
    missing: list[str] = []
    for string in dict.fromkeys(strings):
        places = list(_find_places(normalize(string).text.strip(), borders))
        spans += places
        if not places:
            missing.append(string)
    return merge_spans(spans), tuple(missing)


def grow_spans(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples with each unwanted entity unwanted in all of them.

    An entity is an unwanted passage with a capital letter, a digit or a letter without case: a
    name, a title, a date. The paper (arXiv 2506.03142) leaves it open how to forget facts that
    stand in several samples.
    """
    entities: dict[str, None] = {}  # in their order, each once
    for sample in samples:
        for span in sample.unwanted or ():
            passage = sample.answer[span.start : span.end]
            if _ENTITY.search(passage):
                entities[passage] = None
    grown = []
    for sample in samples:
        places, _ = find_strings((e for e in entities if e in sample.answer), sample.answer)
        unwanted = merge_spans((*(sample.unwanted or ()), *places))
        grown.append(dataclasses.replace(sample, unwanted=unwanted))
    return tuple(grown)


@dataclasses.dataclass(frozen=True)
class NormalizedText:
    """A text made comparable, with the way back to its original.

    Attributes:
        text: the comparable text.
        starts: where in `text` each grapheme begins, ascending.
        spans: the grapheme's place in the original, one for each of `starts`.
    """

    text: str
    starts: list[int]
    spans: list[Span]


@dataclasses.dataclass(frozen=True)
class _Borders:
    """Where a place may begin and end in a comparable text: between graphemes, not inside a word.

    Attributes:
        text: the comparable text.
        begins, ends: offsets into it, and the offsets into the original.
        sorted_begins: those of `begins`, ascending.
    """

    text: str
    begins: dict[int, int]
    ends: dict[int, int]
    sorted_begins: list[int]

    def allow(self, start: int, end: int) -> bool:
        """Tell whether text[start:end] begins and ends at borders."""
        return start in self.begins and end in self.ends


@functools.lru_cache(maxsize=16)
def _find_borders(text: str) -> _Borders:
    normalized = normalize(text)
    inside_words = {match.start() for match in _INSIDE_WORD.finditer(text)}
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    next_starts = [*normalized.starts[1:], len(normalized.text)]
    for start, end, span in zip(normalized.starts, next_starts, normalized.spans, strict=True):
        if span.start not in inside_words:
            begins[start] = span.start
        if span.end not in inside_words:
            ends[end] = span.end
    return _Borders(normalized.text, begins, ends, sorted(begins))


@functools.lru_cache(maxsize=16)  # the votes on one answer follow each other
def normalize(text: str) -> NormalizedText:
    """Return the comparable text, grapheme by grapheme, with offsets back to the original."""
    parts: list[str] = []
    starts: list[int] = []
    spans: list[Span] = []
    length = 0
    for match in _GRAPHEME.finditer(text):
        part = _normalize_grapheme(match.group())
        is_blank = part.isspace()
        if not part or (is_blank and parts and parts[-1] == " "):
            # Invisible characters, and the rest of a run of blanks, go with what is before them.
            if spans:
                spans[-1] = Span(spans[-1].start, match.end())
            continue
        part = " " if is_blank else part
        parts.append(part)
        starts.append(length)
        spans.append(Span(match.start(), match.end()))
        length += len(part)
    return NormalizedText("".join(parts), starts, spans)


def _find_places(string: str, borders: _Borders) -> Iterator[Span]:
    """Yield each place of the comparable `string`; places that overlap are one.

    Steps are as long as the string where places overlap: a string that repeats itself in a text
    that does so too would take a step for each character.
    """
    text, length = borders.text, len(string)
    start = text.find(string) if string else -1
    while start >= 0:
        next_start = start + 1
        if borders.allow(start, start + length):
            last = start
            while (later := _find_last_overlap(string, borders, last)) > last:
                last = later
            yield Span(borders.begins[start], borders.ends[last + length])
            next_start = last + 1
        index = bisect.bisect_left(borders.sorted_begins, next_start)
        if index == len(borders.sorted_begins):
            return
        start = text.find(string, borders.sorted_begins[index])


def _find_last_overlap(string: str, borders: _Borders, start: int) -> int:
    """Return the last place that begins inside the place at `start`; `start` where none does."""
    length = len(string)
    last = start + length
    while last > start + 1:
        last = borders.text.rfind(string, start + 1, last - 1 + length)
        if last < 0:
            return start
        if borders.allow(last, last + length):
            return last
    return start


def _normalize_grapheme(grapheme: str) -> str:
    if len(grapheme) > LONGEST_GRAPHEME:
        return grapheme
    normal = unicodedata.normalize("NFKC", grapheme.translate(_ALIKE)).translate(_ALIKE)
    return _INVISIBLE.sub("", normal)
