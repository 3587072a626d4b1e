"""How much of an answer the model still predicts token by token, and how far it has moved.

A metric maps the token statistics of a set's answers to (N,), one value an answer; the reported
number is the mean. Only our own records have token statistics. open-unlearning's logs have its own
numbers of each answer in their place.
"""

from collections.abc import Sequence

import numpy as np

from tif.metrics.registry import metrics_reading, register_metric
from tif.metrics.values import Floats
from tif.records.protocols import LEGACY_TOFU, Protocol
from tif.records.types import RecordSet, TokenStats


@register_metric(
    "<set>/exact_memorization", "exact memorization", better="↑", on_forget="↓",
    reads="token statistics", columns={},
)  # fmt: skip
def exact_memorization(stats: Sequence[TokenStats], rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return which share of the answer's tokens the model predicts after the true tokens before it.

    Formula: mean over an answer's tokens, without its end token, of [argmax = token]; answers of
    which nothing else was scored are left out. Range: 0 to 1. Better: lower on forget, higher on
    retain. Perfect unlearning: the retain model's value (not 0: frequent words are guessed).
    Source: Tirumala et al., arXiv 2205.10770; locuslab/open-unlearning
    src/evals/metrics/memorization.py (which leaves out the last token of every text, also of
    MUSE's, which have no end token).
    """
    answers = [_select_hits(answer) for answer in stats]
    return np.array([np.mean(hits) for hits in answers if hits], dtype=np.float64)


@register_metric(
    "<set>/extraction_strength", "extraction strength", better="↑", on_forget="↓",
    short="extraction", reads="token statistics", columns={"forget": 20}, main=("forget",),
)  # fmt: skip
def extraction_strength(stats: Sequence[TokenStats], rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return which share of the answer, from its end, the model predicts without a mistake.

    Formula: 1 - k / n with n the answer's tokens, without its end token, and k the shortest prefix
    after which every token is the argmax (after the true tokens before it); 0 where n is 0. Where
    the last token is not predicted it is 0 (protocol open-unlearning: 1 / n). Range: 0 to 1 (all
    are predicted). Better: lower on forget, higher on retain. Perfect unlearning: the retain
    model's value.
    Source: Carlini et al., arXiv 2012.07805; locuslab/open-unlearning
    src/evals/metrics/memorization.py.
    """
    shares = []
    for answer in stats:
        hits = _select_hits(answer)
        prefix = len(hits)
        while prefix > 0 and hits[prefix - 1]:
            prefix -= 1
        if rules.extracts_last:
            prefix = min(prefix, len(hits) - 1)
        shares.append(1 - prefix / len(hits) if hits else 0.0)
    return np.array(shares)


def _select_hits(answer: TokenStats) -> tuple[bool, ...]:
    """Return for each token but the end token whether it is the most likely one."""
    return answer.top[:-1] if answer.ended else answer.top


@register_metric(
    "<set>/kl", "KL to the original", better="↓", on_forget="", short="KL", unit="nats a token",
    reads="kl", columns={"retain": 73},
)  # fmt: skip
def kl(stats: Sequence[TokenStats], rules: Protocol = LEGACY_TOFU) -> Floats:
    """Return how far the model's predictions moved from the original model's.

    Formula: mean over an answer's tokens, with the end token, of KL(original || model) of the next
    token's distribution. Range: 0 to infinity, nats a token. Better: lower on retain, real_authors
    and world_facts; neither on forget. Perfect unlearning: near 0 on retain, above 0 on forget.
    Source: locuslab/tofu and NPO average it over all positions, with prompt and padding; here over
    the answer's only.
    """
    return np.array([np.mean(answer.kl or 0.0) for answer in stats])


def question_values(records: RecordSet, rules: Protocol = LEGACY_TOFU) -> dict[str, Floats | None]:
    """Return those metrics of a set that its records allow, question by question: (N,) each.

    Raises:
        ValueError: If only some records have token statistics.
    """
    stats = [record.stats for record in records.records if record.stats is not None]
    missing = [record.id for record in records.records if record.stats is None]
    values: dict[str, Floats | None] = {}
    if not stats:  # a log gives some of them for each answer
        for key in metrics_reading("token statistics", "kl"):
            if records.records and all(key in record.logged for record in records.records):
                values[key] = np.array([record.logged[key] for record in records.records])
        return values
    if missing:
        count = f"{len(missing)} of {len(records.records)}"
        raise ValueError(f"{records.name}: {count} have no stats: {missing[0]}, ...")
    kinds = ["token statistics"]
    if all(answer.kl is not None for answer in stats):
        kinds.append("kl")
    for key, registered in metrics_reading(*kinds).items():
        by_question = registered.function(stats, rules)
        values[key] = by_question if len(by_question) else None
    return values
