"""How likely a model finds unwanted and general words: the picture of targeted forgetting.

Called by `reports`. The words of an answer are known where a run's identifier marked them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tif.metrics.values import Floats
from tif.records.answer_tokens import AnswerTokens
from tif.records.types import RecordSet


def word_probability(
    records: RecordSet, tokens: Mapping[str, AnswerTokens], unwanted: bool
) -> Floats:
    """Return how likely the model finds the unwanted (or general) tokens of each answer.

    Formula: exp of the mean log-probability of those tokens, after the true tokens before them; the
    end token is general. Range: 0 to 1. Better: unwanted lower, general higher.
    Perfect unlearning: the retain model's value. Source: `probability` of tofu.py, on a part of the
    tokens.

    Args:
        records: of a set.
        tokens: of its answers, by record id.
        unwanted: which of the two.

    Returns:
        (N,), of those answers whose words are known and which have such tokens.
    """
    means = []
    for record in records.records:
        answer = tokens.get(record.id)
        if record.stats is None or answer is None or answer.uw is None:
            continue
        if len(answer.uw) != len(record.stats.logprob):
            continue
        chosen = _select(record.stats.logprob, answer.uw, unwanted)
        if chosen:
            means.append(np.exp(np.mean(chosen)))
    return np.array(means, dtype=np.float64)


def _select(logprobs: Sequence[float], uw: Sequence[bool], unwanted: bool) -> list[float]:
    pairs = zip(logprobs, uw, strict=True)
    return [logprob for logprob, is_unwanted in pairs if is_unwanted == unwanted]
