"""Shared by the metrics: the type of their values, their mean, a scored text, ROUGE."""

import dataclasses
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import regex as re

from tif.identifiers.segmentation import find_words
from tif.records.types import Record, RecordSet

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """What the attacks know of a text. All in nats.

    Attributes:
        text: the text itself.
        logprobs: (K,) log-probability of each token.
        means, deviations: (K,) mean and standard deviation of log p over the vocabulary, under p.
        reference_logprobs: (K,) under the reference model; None = no such model.
        gradient_norm: from evaluation/token_stats.py; None = not computed.
    """

    text: str
    logprobs: Sequence[float]
    means: Sequence[float] = ()
    deviations: Sequence[float] = ()
    reference_logprobs: Sequence[float] | None = None
    gradient_norm: float | None = None


def as_tokens(values: Sequence[float]) -> Floats:
    """Return numbers of a text's tokens: (K,); raise ValueError if there are none."""
    tokens = np.asarray(values, dtype=np.float64)
    if not tokens.size:
        raise ValueError("membership: the text has no scored token, want at least one")
    return tokens


def mean_or_none(values: Floats | None) -> float | None:
    """Return the mean of a metric's values; None where there are none."""
    return None if values is None else float(values.mean())


def require_records(records: RecordSet) -> tuple[Record, ...]:
    """Return the records of a set; raise ValueError if there are none."""
    if not records.records:
        raise ValueError(f"{records.name}: the set has no records")
    return records.records


def rouge_scores(records: RecordSet, stemming: bool) -> list[dict[str, Any]]:
    """Return {"rouge1": score, "rougeL": score} of each generation against its answer.

    A score has `precision`, `recall` and `fmeasure`, each 0 to 1. rouge-score's own tokenizer sees
    nothing but a to z and digits; where most letters of an answer are of another script, its words
    (in scripts without blanks: characters) are compared instead.

    Raises:
        ValueError: If the set is empty, or a record has no generation.
    """
    missing = [record.id for record in require_records(records) if record.generated is None]
    if missing:
        count = f"{len(missing)} of {len(records.records)}"
        raise ValueError(f"{records.name}: no generation for {count}: {missing[0]}, ...")
    return [
        _score_pair(record.answer, str(record.generated), stemming) for record in records.records
    ]


@lru_cache(maxsize=10_000)  # TOFU's two ROUGE metrics read the scores of the same pairs
def _score_pair(answer: str, generation: str, stemming: bool) -> Any:
    letters = len(re.findall(r"\p{L}", answer))
    is_latin = 2 * len(re.findall(r"\p{Latin}", answer)) >= letters
    return _load_scorer(stemming, is_latin).score(answer, generation)


@cache
def _load_scorer(stemming: bool, is_latin: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = None if is_latin else _WordTokenizer()
    return RougeScorer(["rouge1", "rougeL"], use_stemmer=stemming, tokenizer=tokenizer)


class _WordTokenizer:
    """Cuts a text into words in any script, as rouge-score asks its tokenizers to."""

    def tokenize(self, text: str) -> list[str]:
        folded = text.casefold()
        return [folded[word.start : word.end] for word in find_words(folded)]
