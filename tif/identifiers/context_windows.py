"""Cut answers of any length into windows that fit a model, and label the words in them.

Called by the identifiers that load a model; `generative` uses `split_into_passages` alone. Each
character is labelled in one window only, and seen with context on both sides. A few windows are in
memory at a time, however long the text is.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tif.data.samples import Sample, Span
from tif.identifiers.segmentation import find_middle_border, find_words, split_sentences
from tif.identifiers.span_operations import append_joined, shift_spans

T = TypeVar("T")
CountTokens = Callable[[Sequence[str]], list[int]]  # texts to their numbers of tokens
ReportWords = Callable[[int], None]  # called with the number of words just decided
WINDOWS_AT_ONCE = 32  # in memory, sorted by length before they are batched
_SENTENCES_AT_ONCE = 64  # tokenised in one call


@dataclasses.dataclass(frozen=True)
class Passage:
    """A stretch start:end of a text to label; the model sees shown_start:shown_end."""

    start: int
    end: int
    shown_start: int
    shown_end: int


@dataclasses.dataclass(frozen=True)
class Window:
    """What a model sees at once."""

    sample: int  # position of the sample among those to label
    text: str  # prompt (where it is shown) and a stretch of the answer
    words: list[Span]  # the words to label, as offsets into `text`
    shift: int  # offset into the answer minus offset into `text`


# Windows to a verdict for each of their words, True = unwanted; reports words as it decides them.
Judge = Callable[[Sequence[Window], ReportWords], Iterable[Sequence[bool]]]


@dataclasses.dataclass(frozen=True)
class _Sentence:
    """A sentence, or a part of one that is too long, and its number of tokens."""

    start: int
    end: int
    tokens: int


def split_into_passages(text: str, count_tokens: CountTokens, budget: int) -> Iterator[Passage]:
    """Yield one passage where the text fits, else passages of sentences that follow without a gap.

    Half of the budget (tokens shown at once) is labelled, a quarter is context on each side. Where
    one side has no more context (the text's begin) or a long sentence, the other side gets more.
    """
    if len(text) <= 8 * budget and count_tokens([text])[0] <= budget:
        yield Passage(0, len(text), 0, len(text))
        return
    nearby: list[_Sentence] = []  # context before, sentences to label next, and what follows them
    first = 0  # index in `nearby` of the first sentence to label
    for sentence in _split_to_fit(text, count_tokens, max(1, budget // 2)):
        nearby.append(sentence)
        # More than the budget is read ahead: enough to choose the next passage and its context.
        while sum(later.tokens for later in nearby[first:]) > budget:
            passage, first = _take_passage(nearby, first, budget)
            yield passage
    while first < len(nearby):
        passage, first = _take_passage(nearby, first, budget)
        yield passage


def _take_passage(nearby: list[_Sentence], first: int, budget: int) -> tuple[Passage, int]:
    """Return the next passage and the index in `nearby` of the first sentence after it.

    Sentences before the passage's context are removed from `nearby`: no later passage shows them.
    """
    sizes = [sentence.tokens for sentence in nearby]
    last, tokens = first + 1, sizes[first]
    while last < len(nearby) and tokens + sizes[last] <= budget // 2:
        tokens += sizes[last]
        last += 1
    shown_first, shown_last = first, last
    while shown_first and tokens + sizes[shown_first - 1] <= budget * 3 // 4:
        shown_first -= 1
        tokens += sizes[shown_first]
    while shown_last < len(nearby) and tokens + sizes[shown_last] <= budget:
        tokens += sizes[shown_last]
        shown_last += 1
    labelled = nearby[first].start, nearby[last - 1].end
    passage = Passage(*labelled, nearby[shown_first].start, nearby[shown_last - 1].end)
    del nearby[:shown_first]
    return passage, last - shown_first


def _split_to_fit(text: str, count_tokens: CountTokens, most: int) -> Iterator[_Sentence]:
    """Yield stretches of at most `most` tokens that cover the text: sentences where they fit."""
    for borders in _take_batches(split_sentences(text), _SENTENCES_AT_ONCE):
        yield from _halve_to_fit(text, borders, count_tokens, most)


def _halve_to_fit(
    text: str, borders: Sequence[tuple[int, int]], count_tokens: CountTokens, most: int
) -> Iterator[_Sentence]:
    sizes = count_tokens([text[start:end] for start, end in borders])
    for (start, end), tokens in zip(borders, sizes, strict=True):
        if tokens <= most or end - start == 1:
            yield _Sentence(start, end, tokens)
        else:
            middle = find_middle_border(text, start, end)
            yield from _halve_to_fit(text, [(start, middle), (middle, end)], count_tokens, most)


def make_windows(
    samples: Sequence[Sample],
    text_before: Callable[[Sample], str],
    count_tokens: CountTokens,
    budget: int,
    rule: str = "unicode",
) -> Iterator[Window]:
    """Yield all windows of all samples, in order.

    Args:
        samples: whose answers are labelled.
        text_before: gives what is shown before a sample's answer, in each of its windows. Its
            beginning is cut off where it takes more than half of the budget.
        count_tokens: a tokenizer's counts, without special tokens.
        budget: tokens shown at once, prompt included.
        rule: which words, see `find_words`.
    """
    for position, sample in enumerate(samples):
        before = _cut_beginning(text_before(sample), count_tokens, budget // 2)
        before_tokens = count_tokens([before])[0] if before else 0
        for passage in split_into_passages(sample.answer, count_tokens, budget - before_tokens):
            shift = passage.shown_start - len(before)
            text = before + sample.answer[passage.shown_start : passage.shown_end]
            words = find_words(sample.answer[passage.start : passage.end], rule)
            yield Window(position, text, shift_spans(words, passage.start - shift), shift)


def _cut_beginning(text: str, count_tokens: CountTokens, most: int) -> str:
    """Return the end of the text, cut between characters so that it has at most `most` tokens."""
    text = text[-8 * most :]
    while text and count_tokens([text])[0] > most:
        text = text[len(text) // 8 + 1 :]
    return text


def label_words(
    samples: Sequence[Sample],
    windows: Iterable[Window],
    judge: Judge,
    description: str,
    rule: str = "unicode",
) -> tuple[Sample, ...]:
    """Return the samples with the words that `judge` calls unwanted, joined over blanks.

    `description` stands beside the progress bar, which counts words.
    """
    from tif.utils.terminal import progress_bar

    total = sum(sum(1 for _ in find_words(sample.answer, rule)) for sample in samples)
    start, decided = time.monotonic(), 0
    with progress_bar(description, total) as line:

        def report(count: int) -> None:
            nonlocal decided
            decided += count
            seconds = max(1e-9, time.monotonic() - start)
            line.advance(count, f"{decided / seconds:,.0f} words/s")

        unwanted = _collect_unwanted(samples, windows, judge, report)
    pairs = zip(samples, unwanted, strict=True)
    return tuple(dataclasses.replace(sample, unwanted=tuple(spans)) for sample, spans in pairs)


def _collect_unwanted(
    samples: Sequence[Sample], windows: Iterable[Window], judge: Judge, report: ReportWords
) -> list[list[Span]]:
    """Return each sample's unwanted words, joined over blanks."""
    unwanted: list[list[Span]] = [[] for _ in samples]
    for batch in _take_batches(windows, WINDOWS_AT_ONCE):
        for window, verdicts in zip(batch, judge(batch, report), strict=True):
            words = itertools.compress(window.words, verdicts)
            for word in shift_spans(words, window.shift):
                append_joined(samples[window.sample].answer, unwanted[window.sample], word)
    return unwanted


def _take_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter (itertools.batched needs Python 3.12)."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
