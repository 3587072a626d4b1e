"""One evaluation, one row of numbers; and one number to tell epochs apart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tif.metrics import muse, tofu
from tif.records.types import Evaluation

Values = Mapping[str, float | None]
SCORE = "eval/score"


def aggregate(evaluation: Evaluation, retain: Evaluation | None = None) -> dict[str, float | None]:
    """Every metric of a benchmark's records by its stable name, with `retain/loss` (nats a token) and `eval/score`.

    Raises:
        ValueError: See tofu.aggregate and muse.aggregate.
    """
    of_muse = any(name in evaluation.sets for name in muse.SETS)
    found = (muse if of_muse else tofu).aggregate(evaluation, retain)
    if "retain" in evaluation.sets:
        losses = [record.loss for record in evaluation.sets["retain"].records]
        found["retain/loss"] = sum(losses) / len(losses)
    value = score(found)
    return found if value is None else found | {SCORE: value}


def score(values: Values) -> float | None:
    """How good an unlearned model is on the whole: what `eval.best` ranks epochs by.

    Formula: harmonic mean of usefulness and forgetting.
    TOFU: model utility, and 1 / (1 + max(0, log10(0.05 / p))) with p the forget quality. That keeps the order of
    p-values that are far too small to tell apart on their own scale (0.05 and above: 1; 0.005: 1/2; 5e-11: 1/10), and
    takes p-values above 0.05 as equal: the test cannot tell such a model from one that never saw the forget set.
    MUSE: KnowMem on the retain set (as a share), and 1 - |PrivLeak| / 100, at least 0.
    Range: 0 to 1. Better: higher.
    Perfect unlearning: 2u / (1 + u) with u the retain model's utility.
    Source: ours; it ranks the epochs of one run and is no published metric.

    Returns:
        None where the values lack one of the two.
    """
    utility, quality = values.get("utility/model"), values.get("forget/quality")
    if utility is not None and quality is not None:
        excess = max(0.0, math.log10(0.05) - math.log10(max(quality, 1e-300)))
        return _harmonic(utility, 1 / (1 + excess))
    knowledge, leak = values.get("muse/knowmem_retain"), values.get("muse/privleak")
    if knowledge is not None and leak is not None:
        return _harmonic(knowledge / 100, max(0.0, 1 - abs(leak) / 100))
    return None


def key(best: str) -> str:
    """The metric that `eval.best` names."""
    return SCORE if best == "score" else best


def best_epoch(rows: Sequence[Mapping[str, Any]], metric: str) -> int | None:
    """The evaluated epoch after 0 with the highest `metric`, the first of equals; None where no row has it."""
    found = [(row[metric], -row["epoch"]) for row in rows if row["epoch"] > 0 and metric in row]
    return -max(found)[1] if found else None


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0
