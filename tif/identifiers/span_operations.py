"""Operations on spans: union, joining neighbours, complement, majority and agreement of votes.

Called by the identifiers and by `string_search`. Pure functions of offsets and texts.
"""

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tif.data.samples import Span, merge_spans
from tif.identifiers.segmentation import find_words


def append_joined(text: str, spans: list[Span], span: Span) -> None:
    """Append `span` to the sorted `spans`; join it to the last where only blanks are between."""
    if spans and not text[spans[-1].end : span.start].strip():
        spans[-1] = Span(spans[-1].start, span.end)
    else:
        spans.append(span)


def join_neighbours(text: str, words: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans of sorted words, joined where nothing but blanks stands between two."""
    spans: list[Span] = []
    for word in words:
        append_joined(text, spans, word)
    return tuple(spans)


def complement(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the stretches of `text` outside the spans, without the blanks at either end."""
    start = 0
    for span in (*merge_spans(spans), Span(len(text), len(text) + 1)):
        stretch = text[start : span.start]
        if stretch.strip():
            left_blanks = len(stretch) - len(stretch.lstrip())
            yield Span(start + left_blanks, start + len(stretch.rstrip()))
        start = span.end


def majority(votes: Sequence[Sequence[Span]]) -> tuple[Span, ...]:
    """Return the characters that more than half of the votes cover."""
    counts: Counter[int] = Counter()
    for spans in votes:
        for span in merge_spans(spans):
            counts.update(range(span.start, span.end))
    return merge_spans(Span(i, i + 1) for i, count in counts.items() if 2 * count > len(votes))


def jaccard_index(first: set[Any], second: set[Any]) -> float:
    """Return the elements of both sets over those of either; 1 where there are none."""
    either = first | second
    return len(first & second) / len(either) if either else 1.0


def agreement(text: str, votes: Sequence[Sequence[Span]]) -> float:
    """Return the mean Jaccard similarity of all pairs of votes over words: 0 to 1, 1 = the same.

    A word belongs to a vote that touches it. 1 where neither of two votes has a word, and where
    there is one vote only.
    """
    touched = []
    for spans in votes:
        touched.append({word for word in find_words(text) if _touches_any(word, spans)})
    similarities = [jaccard_index(*pair) for pair in itertools.combinations(touched, 2)]
    return statistics.fmean(similarities or [1.0])


def _touches_any(word: Span, spans: Sequence[Span]) -> bool:
    return any(span.start < word.end and word.start < span.end for span in spans)


def shift_spans(spans: Iterable[Span], offset: int) -> list[Span]:
    """Return the spans moved by `offset` characters."""
    return [Span(span.start + offset, span.end + offset) for span in spans]
