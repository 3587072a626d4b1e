"""ROUGE of generations against their answers, by the rouge-score package.

Called by metrics/tofu.py (recall, with stemming) and metrics/muse.py (F1, without stemming).
"""

from functools import cache, lru_cache
from typing import Any

from tif.metrics.values import require_records
from tif.records.types import RecordSet


def rouge_scores(records: RecordSet, stemming: bool) -> list[Any] | None:
    """Return ROUGE-1 and ROUGE-L of each generation against its answer.

    Returns:
        One dict a record, {"rouge1": score, "rougeL": score}, where a score has `precision`,
        `recall` and `fmeasure`, each 0 to 1. None where no record has a generation.

    Raises:
        ValueError: If the set is empty, or only some of its records have a generation.
    """
    missing = [record.id for record in require_records(records) if record.generated is None]
    total = len(records.records)
    if len(missing) == total:
        return None
    if missing:
        raise ValueError(
            f"{records.name}: no generation for {len(missing)} of {total}: {missing[0]}, ..."
        )
    return [
        _score_pair(record.answer, str(record.generated), stemming) for record in records.records
    ]


@lru_cache(maxsize=10_000)  # TOFU's two ROUGE metrics read the scores of the same pairs
def _score_pair(answer: str, generation: str, stemming: bool) -> Any:
    return _load_scorer(stemming).score(answer, generation)


@cache
def _load_scorer(stemming: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=stemming)
