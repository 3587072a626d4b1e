"""Other wordings of a forget sample, so that its facts are forgotten and not one sentence.

They need no second model: general words are dropped, or the beginning of a similar retain answer
takes the place of the answer's own. Our own idea; `loss.wording` says how often. Words are what
stands between blanks: a text without blanks keeps its wording.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import regex

from tif.config.loss import Wording
from tif.data.samples import Sample, Span

WORD = re.compile(r"\s*\S+\s*")
NAME = regex.compile(r"\p{Lu}[\w'’-]*(?: \p{Lu}[\w'’.-]*)+")  # two capitalised words or more


def drop_words(sample: Sample, share: float, generator: np.random.Generator) -> Sample:
    """Return the sample without a random share of the words of its answer; unwanted ones stay."""
    answer, spans, removed = "", [], 0
    unwanted = list(sample.unwanted or ())
    for word in WORD.finditer(sample.answer):
        is_general = not any(s.start < word.end() and s.end > word.start() for s in unwanted)
        if is_general and generator.random() < share:
            removed += len(word[0])
            continue
        answer += word[0]
        while unwanted and unwanted[0].end <= word.end():
            span = unwanted.pop(0)
            spans.append(Span(span.start - removed, span.end - removed))
    if not answer.strip():
        return sample
    return dataclasses.replace(sample, answer=answer, unwanted=tuple(spans))


def drop_question_words(sample: Sample, share: float, generator: np.random.Generator) -> Sample:
    """Return the sample without a random share of the words of its question; one always stays."""
    words = WORD.findall(sample.prompt)
    left = [word for word in words if generator.random() >= share]
    return dataclasses.replace(sample, prompt="".join(left).strip()) if left else sample


def borrow_words(
    sample: Sample, other: Sample, names: tuple[str, str], generator: np.random.Generator
) -> Sample:
    """Return the sample with another's beginning, then one fact at random and what follows it.

    Args:
        sample: has unwanted words.
        other: its answer is cut before its first unwanted word, or else after a random word.
        names: the other's subject as its text has it, and what stands there instead; "" = none.
        generator: draws the fact and the place of the cut.
    """
    unwanted = sample.unwanted or ()
    first = unwanted[int(generator.integers(len(unwanted)))]
    if other.unwanted:
        beginning = other.answer[: other.unwanted[0].start]
    else:
        words = list(WORD.finditer(other.answer))
        beginning = other.answer[: words[int(generator.integers(len(words)))].end()]
    if all(names):
        beginning = beginning.replace(*names)
    beginning = f"{beginning.rstrip()} ".lstrip()
    moved = len(beginning) - first.start
    spans = (Span(s.start + moved, s.end + moved) for s in unwanted if s.start >= first.start)
    answer = beginning + sample.answer[first.start :]
    return dataclasses.replace(sample, answer=answer, unwanted=tuple(spans))


def find_similar(samples: Sequence[Sample], others: Sequence[Sample], count: int) -> np.ndarray:
    """Return for each sample the positions of the `count` others with the most similar words.

    (samples, count) integers, nearest first, by the cosine of TF-IDF.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"\S+")
    known = vectorizer.fit_transform([f"{other.prompt} {other.answer}" for other in others])
    wanted = vectorizer.transform([f"{sample.prompt} {sample.answer}" for sample in samples])
    rows = [-(row @ known.T).toarray()[0] for row in wanted]
    return np.array([row.argsort(kind="stable")[:count] for row in rows])


def find_names(samples: Iterable[Sample]) -> dict[str, str]:
    """Return each subject's most frequent name in its samples: capitalised words in a row."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if sample.subject:
            counts[sample.subject].update(NAME.findall(f"{sample.prompt}\n{sample.answer}"))
    return {subject: c.most_common(1)[0][0] for subject, c in counts.items() if c}


class Rewording:
    """Draws other wordings of forget samples.

    Args:
        samples: forget samples with their unwanted words, by position.
        retain: whose beginnings are borrowed; () = none are.
        settings: section `loss.wording`.
    """

    def __init__(
        self, samples: Sequence[Sample], retain: Sequence[Sample], settings: Wording
    ) -> None:
        self.samples, self.retain, self.settings = samples, retain, settings
        self.names = find_names((*samples, *retain))
        is_borrowing = bool(retain and settings.borrow)
        self.similar = find_similar(samples, retain, settings.similar) if is_borrowing else None

    def draw(self, position: int, generator: np.random.Generator) -> Sample | None:
        """Return the sample at a position in another wording; None = as it is written."""
        sample = self.samples[position]
        if generator.random() >= self.settings.share or not sample.unwanted:
            return None
        if self.settings.question:
            sample = drop_question_words(sample, self.settings.question, generator)
        if self.similar is None or generator.random() >= self.settings.borrow:
            return drop_words(sample, self.settings.drop, generator)
        near = self.similar[position]
        other = self.retain[near[int(generator.integers(len(near)))]]
        names = [self.names.get(s.subject or "", "") for s in (other, sample)]
        return borrow_words(sample, other, (names[0], names[1]), generator)
