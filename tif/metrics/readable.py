"""Whether answers read: complete sentences, judged by the benchmark's own answers.

Unlearning often leaves holes ("was born in the city of", "at the age of."), begins again in the
middle or repeats itself. No model is needed to see that, and none is at hand where only records
are. What an answer says is not judged: "born in the city of war" reads.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from tif.metrics.fluency import repetition
from tif.metrics.registry import register_metric
from tif.metrics.tofu import SETS_WITH_OPTIONS
from tif.metrics.values import Floats
from tif.records.types import Evaluation

LEAST_SEEN = 10  # times that a word stands in the answers before its places are judged
LEAST_BY_CHANCE = 5  # times that chance alone would have put two words beside each other
RARE = 0.05  # of a word's places: below it the place is not one of the word's
MOST_REPEATED = 0.25  # share of 4-grams that stood before
ENDING_SHARE = 0.9  # of the answers that end with a mark before one is demanded
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_QUOTES = "\"'“”‘’«»„"
_SENTENCE_MARKS = tuple(".!?…。！？।؟")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a word stands: the word in lower case, what surrounds it, and how it is written."""

    word: str
    before: str  # the word before it, in lower case; "" after a mark or a quote, and at the start
    is_last: bool  # whether a mark or nothing follows, quotes left aside
    is_capital: bool


def list_places(text: str) -> Iterator[Place]:
    """Yield the words of a text in order."""
    tokens = _TOKEN.findall(text)
    for i, token in enumerate(tokens):
        if not token[0].isalnum():
            continue
        following = [other for other in tokens[i + 1 : i + 3] if other not in _QUOTES]
        before = tokens[i - 1].casefold() if i and tokens[i - 1][0].isalnum() else ""
        is_last = not following or not following[0][0].isalnum()
        yield Place(token.casefold(), before, is_last, token[0].isupper())


class Wording:
    """How the benchmark's own answers are worded; `answers`: their texts."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.counts, self.last, self.pairs = Counter[str](), Counter[str](), Counter[str]()
        self.inside, self.capital = Counter[str](), Counter[str]()  # after another word
        for answer in answers:
            for place in list_places(answer):
                self.counts[place.word] += 1
                self.last[place.word] += place.is_last
                if place.before:
                    self.pairs[f"{place.before} {place.word}"] += 1
                    self.inside[place.word] += 1
                    self.capital[place.word] += place.is_capital
        marked = sum(_ends_with_mark(answer) for answer in answers)
        self.ends_with_mark = marked >= ENDING_SHARE * max(len(answers), 1)

    def reads(self, text: str) -> bool:
        """Return whether a generation is complete sentences, as `readable` says."""
        places = list(list_places(text))
        if not places or (self.ends_with_mark and not _ends_with_mark(text)):
            return False
        if any(self._is_hole(place) for place in places):
            return False
        return repetition(text) <= MOST_REPEATED

    def _is_hole(self, place: Place) -> bool:
        """Return whether a word cannot stand where it stands."""
        word = place.word
        count, inside = self.counts[word], self.inside[word]
        if place.is_last and count >= LEAST_SEEN and self.last[word] < RARE * count:
            return True
        if not place.before:
            return False
        is_small = inside >= LEAST_SEEN and self.capital[word] < RARE * inside
        if place.is_capital and is_small:
            return True
        by_chance = self.counts[place.before] * count / max(self.counts.total(), 1)
        is_never_so = not self.pairs[f"{place.before} {word}"]
        return is_never_so and (by_chance >= LEAST_BY_CHANCE or place.before == word)


@register_metric("forget/readable", "answers that read", better="↑", columns={"forget": 9})
def readable(evaluation: Evaluation) -> Floats | None:
    """Return for each forget question if the greedy answer reads like an answer, 1 or 0.

    Formula: 0 if the generation (a) has no word; (b) does not end with a sentence mark, where nine
    of ten of the benchmark's answers do; (c) has a word at its end or before a mark that hardly
    ever stands there, "at the age of."; (d) begins again in the middle, "in the city of The author
    was": a capital that the word hardly ever has after a word; (e) has two words beside each other
    that never stand so, although chance alone would have put them there five times, or a word
    twice; (f) repeats more than a quarter of its 4-grams; else 1. Hardly ever: in less than 5 % of
    at least ten places in the benchmark's answers (but those chosen among options). Range: 0 or 1;
    the mean is a share. Better: higher. Perfect unlearning: the retain model's value. Source: ours;
    open-unlearning asks a classifier for gibberish (`<set>/clean`). It does not judge what an
    answer says; in scripts without blanks it sees (a), (b) and (f) alone.

    Returns:
        (N,); None where a forget question has no generation.
    """
    if "forget" not in evaluation.sets:
        return None
    generations = [record.generated for record in evaluation.sets["forget"].records]
    texts = [text for text in generations if text is not None]
    if not texts or len(texts) < len(generations):
        return None
    wording = Wording(_list_answers(evaluation))
    return np.array([wording.reads(text) for text in texts], dtype=np.float64)


def _list_answers(evaluation: Evaluation) -> list[str]:
    """Return the benchmark's answers, each once; not those that are chosen among options."""
    answers: list[str] = []
    for name, records in evaluation.sets.items():
        if name not in SETS_WITH_OPTIONS:
            answers += [record.answer for record in records.records]
    return list(dict.fromkeys(answers))


def _ends_with_mark(text: str) -> bool:
    return text.rstrip().rstrip(_QUOTES + ")]").endswith(_SENTENCE_MARKS)
