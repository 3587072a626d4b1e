"""Answers of any length in windows that fit a model: context on both sides is shown, each character labelled once."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tif.data.samples import Sample, Span
from tif.identifiers.words import joined, near_middle, sentences, words
from tif.utils.terminal import Bar, progress_bar

Count = Callable[[Sequence[str]], list[int]]  # texts to their numbers of tokens
Done = Callable[[int], None]  # told a number of words as they are decided
AT_ONCE = 32  # windows in memory, sorted by length before they are batched
_COUNTED = 64  # sentences tokenised at once


@dataclasses.dataclass(frozen=True)
class Cut:
    """Characters start:end are shown, first:last of them labelled."""

    start: int
    end: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Window:
    """What a model sees at once.

    Attributes:
        sample: position of the sample.
        text: prompt (where it is shown) and a stretch of the answer.
        words: the words to label, in `text`.
        shift: added to an offset into `text` gives the offset into the answer.
    """

    sample: int
    text: str
    words: tuple[Span, ...]
    shift: int


Judge = Callable[[Sequence[Window], Done], Iterable[Sequence[bool]]]


def cuts(text: str, count: Count, budget: int) -> Iterator[Cut]:
    """One cut where the text fits, else cuts at sentence borders whose labelled parts follow each other without gap.

    Half of the budget is labelled, a quarter is context on each side; where one side has none left (the text's begin)
    or a long sentence, the other side gets more.

    Args:
        text: the whole answer.
        count: a tokenizer's counts, without special tokens.
        budget: tokens shown at once.
    """
    if len(text) <= 8 * budget and count([text])[0] <= budget:
        yield Cut(0, len(text), 0, len(text))
        return
    parts, near, first = _parts(text, count, max(1, budget // 2)), list[tuple[int, int, int]](), 0

    def there(i: int) -> bool:
        """Whether near[i] is there, after reading on."""
        near.extend(itertools.islice(parts, max(0, i + 1 - len(near))))
        return i < len(near)

    while there(first):
        last, size = first + 1, near[first][2]
        while there(last) and size + near[last][2] <= budget // 2:
            size, last = size + near[last][2], last + 1
        start, end = first, last
        while start and size + near[start - 1][2] <= budget * 3 // 4:
            start, size = start - 1, size + near[start - 1][2]
        while there(end) and size + near[end][2] <= budget:
            size, end = size + near[end][2], end + 1
        yield Cut(near[start][0], near[end - 1][1], near[first][0], near[last - 1][1])
        del near[:start]  # the next window's context does not reach further back than this one's
        first = last - start


def _parts(text: str, count: Count, most: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens) of stretches of at most `most` tokens that partition the text: sentences where they fit."""
    stretches = sentences(text)
    while batch := list(itertools.islice(stretches, _COUNTED)):
        for (start, end), size in zip(batch, count([text[a:b] for a, b in batch]), strict=True):
            yield from _fitting(text, start, end, size, count, most)


def _fitting(text: str, start: int, end: int, size: int, count: Count, most: int) -> Iterator[tuple[int, int, int]]:
    if size <= most or end - start == 1:
        yield start, end, size
        return
    border = near_middle(text, start, end)
    for a, b in ((start, border), (border, end)):
        yield from _fitting(text, a, b, count([text[a:b]])[0], count, most)


def windows(
    samples: Sequence[Sample], before: Callable[[Sample], str], count: Count, budget: int, rule: str
) -> Iterator[Window]:
    """All windows of all samples, in order.

    Args:
        samples: whose answers are labelled.
        before: text shown before an answer, in each of its windows; too long a one loses its beginning.
        count: as for `cuts`.
        budget: tokens shown at once, prompt included.
        rule: which words, see `words`.
    """
    for number, s in enumerate(samples):
        shown = _tail(before(s), count, budget // 2)
        for cut in cuts(s.answer, count, budget - (count([shown])[0] if shown else 0)):
            text, shift = shown + s.answer[cut.start : cut.end], cut.start - len(shown)
            at = cut.first - shift
            own = (Span(at + w.start, at + w.end) for w in words(s.answer[cut.first : cut.last], rule))
            yield Window(number, text, tuple(own), shift)


def _tail(text: str, count: Count, most: int) -> str:
    """The end of the text, cut between characters so that it has at most `most` tokens."""
    while text and count([text[-8 * most :]])[0] > most:
        text = text[-8 * most :][len(text[-8 * most :]) // 8 + 1 :]
    return text[-8 * most :]


def label(
    samples: Sequence[Sample],
    found: Iterator[Window],
    judge: Judge,
    what: str,
    rule: str = "unicode",
) -> tuple[Sample, ...]:
    """The samples with the words that `judge` calls unwanted; AT_ONCE windows are in memory, whatever the length.

    Args:
        samples: what the windows were cut from.
        found: their windows.
        judge: windows to a verdict for each of their words, True = unwanted; tells how many words it has decided.
        what: shown beside the progress bar, which counts words.
        rule: which words, as for `windows`.
    """
    with progress_bar(what, sum(1 for s in samples for _ in words(s.answer, rule))) as line:
        spans = itertools.groupby(_unwanted(found, judge, _counting(line)), lambda pair: pair[0])
        own = {number: joined(samples[number].answer, (span for _, span in pairs)) for number, pairs in spans}
    return tuple(dataclasses.replace(s, unwanted=own.get(number, ())) for number, s in enumerate(samples))


def _unwanted(found: Iterator[Window], judge: Judge, done: Done) -> Iterator[tuple[int, Span]]:
    """(position of the sample, place in its answer) of each unwanted word, in order."""
    while batch := list(itertools.islice(found, AT_ONCE)):
        for window, verdicts in zip(batch, judge(batch, done), strict=True):
            for word, verdict in zip(window.words, verdicts, strict=True):
                if verdict:
                    yield window.sample, Span(word.start + window.shift, word.end + window.shift)


def _counting(line: Bar) -> Done:
    since, judged = time.monotonic(), 0

    def done(count: int) -> None:
        nonlocal judged
        judged += count
        line.advance(count, f"{judged / max(1e-9, time.monotonic() - since):,.0f} words/s")

    return done
