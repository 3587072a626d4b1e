"""How much of an answer the model still predicts token by token, and how far it has moved.

Called by metrics/tofu.py and metrics/results.py. A metric maps the token statistics of a set's
answers to (N,), one value an answer; the reported number is the mean. Only our own records have
token statistics, logs of other repositories have none.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tif.metrics.values import Floats
from tif.records.types import RecordSet, TokenStats


def exact_memorization(stats: Sequence[TokenStats]) -> Floats:
    """Return which share of the answer's tokens the model predicts after the true tokens before it.

    Formula: mean over an answer's tokens of [argmax = token]. The last scored token (the end token,
    unless the text was cut) is left out; 0 where no other token was scored. Range: 0 to 1.
    Better: lower on forget, higher on retain. Perfect unlearning: the retain model's value (not 0:
    frequent words are guessed). Source: Tirumala et al., arXiv 2205.10770; locuslab/open-unlearning
    src/evals/metrics/memorization.py.
    """
    shares = []
    for answer in stats:
        hits = answer.top[:-1]
        shares.append(float(np.mean(hits)) if hits else 0.0)
    return np.array(shares)


def extraction_strength(stats: Sequence[TokenStats]) -> Floats:
    """Return which share of the answer, from its end, the model predicts without a mistake.

    Formula: 1 - k / n with n the answer's tokens and k the shortest prefix after which every token
    is the argmax (after the true tokens before it). The last scored token is left out, as for
    exact_memorization; 0 where no other token was scored. Range: 0 (the last token is not
    predicted) to 1 (all are). Better: lower on forget. Perfect unlearning: the retain model's
    value. Source: Carlini et al., arXiv 2012.07805; locuslab/open-unlearning
    src/evals/metrics/memorization.py, which gives 1 / n instead of 0 where nothing matches.
    """
    shares = []
    for answer in stats:
        hits = answer.top[:-1]
        predicted = 0
        while predicted < len(hits) and hits[-1 - predicted]:
            predicted += 1
        shares.append(predicted / len(hits) if hits else 0.0)
    return np.array(shares)


def kl(stats: Sequence[TokenStats]) -> Floats:
    """Return how far the model's predictions moved from the original model's.

    Formula: mean over an answer's tokens, with the end token, of KL(original || model) of the next
    token's distribution. Range: 0 to infinity, nats a token. Better: lower on retain, real_authors
    and world_facts; neither on forget. Perfect unlearning: near 0 on retain, above 0 on forget.
    Source: locuslab/tofu and NPO average it over all positions, with prompt and padding; here over
    the answer's only.
    """
    return np.array([np.mean(answer.kl or 0.0) for answer in stats])


QUESTION_METRICS: Mapping[str, Callable[[Sequence[TokenStats]], Floats]] = {
    "exact_memorization": exact_memorization,
    "extraction_strength": extraction_strength,
    "kl": kl,
}


def question_values(records: RecordSet) -> dict[str, Floats | None]:
    """Return those metrics of a set that its records allow, question by question: (N,) each.

    Raises:
        ValueError: If only some records have token statistics.
    """
    stats = [record.stats for record in records.records if record.stats is not None]
    missing = [record.id for record in records.records if record.stats is None]
    if not stats:
        return {}
    if missing:
        count = f"{len(missing)} of {len(records.records)}"
        raise ValueError(f"{records.name}: {count} have no stats: {missing[0]}, ...")
    has_kl = all(answer.kl is not None for answer in stats)
    values: dict[str, Floats | None] = {}
    for name, metric in QUESTION_METRICS.items():
        if name != "kl" or has_kl:
            values[name] = metric(stats)
    return values
