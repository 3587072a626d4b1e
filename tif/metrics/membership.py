"""Membership inference: can the model be told to have read a text? Scores of single texts, and how well they tell.

Every attack gives a text a score that is lower the better the model knows it, from the log-probabilities of the text's
tokens. `auc` compares texts that were to be forgotten with holdout texts of the same kind that no model read.

Shapes: K scored tokens of a text, N texts of one kind, M of the other.
"""

import zlib as compression
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tif.metrics import intervals

Floats = npt.NDArray[np.float64]

SHARE = 0.4  # of a text's tokens that Min-K and Min-K++ look at, the value MUSE and open-unlearning report
FLOOR = 1e-6  # least variance of a token's log-probability, as open-unlearning has it: no division by 0
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm")


def loss(logprobs: npt.ArrayLike) -> float:
    """How surprised the model is by a text, per token.

    Formula: -mean of log p over the tokens, in nats.
    Range: 0 and up; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Yeom et al. 2018 (1709.01604).

    Args:
        logprobs: (K,) log-probabilities of the text's tokens, nats.
    """
    return float(-_tokens(logprobs).mean())


def zlib(logprobs: npt.ArrayLike, text: str) -> float:
    """The loss against how well the text compresses: a plain text is likely under any model.

    Formula: loss / number of bytes of the UTF-8 text compressed by zlib.
    Range: 0 and up; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Carlini et al. 2021 (2012.07805); muse_bench and open-unlearning have the same quotient.
    """
    return loss(logprobs) / len(compression.compress(text.encode("utf-8")))


def min_k(logprobs: npt.ArrayLike, share: float = SHARE) -> float:
    """How surprised the model is by a text's least likely tokens.

    Formula: -mean of log p over the 40 % of tokens with the lowest log p (rounded down, at least one).
    Range: 0 and up; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Shi et al. 2024 (2310.16789); all tokens but the text's first, as in muse_bench (open-unlearning drops the
    last one too).

    Args:
        logprobs: (K,) log-probabilities of the text's tokens, nats.
        share: of the tokens that count.
    """
    return float(-_lowest(_tokens(logprobs), share).mean())


def min_k_plus_plus(
    logprobs: npt.ArrayLike, means: npt.ArrayLike, deviations: npt.ArrayLike, share: float = SHARE
) -> float:
    """Min-K with each token measured against what else could have stood there.

    Formula: as min_k with (log p - mu) / sigma in place of log p; mu and sigma are mean and standard deviation of the
    log-probabilities of the whole vocabulary at that position, under the model's own distribution.
    Range: all numbers; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Zhang et al. 2025 (2404.02936); sigma at least 0.001 as in open-unlearning.

    Args:
        logprobs: (K,) log-probabilities of the text's tokens, nats.
        means: (K,) sum over v of p_v log p_v.
        deviations: (K,) square root of sum over v of p_v (log p_v - mu)^2.
        share: of the tokens that count.
    """
    spread = np.maximum(_tokens(deviations), FLOOR**0.5)
    return float(-_lowest((_tokens(logprobs) - _tokens(means)) / spread, share).mean())


def reference(logprobs: npt.ArrayLike, reference_logprobs: npt.ArrayLike) -> float:
    """The loss against another model's that never saw the text.

    Formula: loss - loss of the reference model, nats per token.
    Range: all numbers; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Carlini et al. 2021 (2012.07805); the difference as in open-unlearning, muse_bench has the quotient.
    """
    return loss(logprobs) - loss(reference_logprobs)


def gradient_norm(norms: npt.ArrayLike) -> float:
    """How much the model would change to learn a text.

    Formula: mean over the model's weight tensors of the 2-norm of the gradient of the text's loss.
    Range: 0 and up; lower where the model knows the text. Reported as an AUC, see `auc`.
    Better: an AUC near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5.
    Source: Wang et al. 2024 (2402.17012), in the form of open-unlearning. Costs a backward pass for each text, so it
    is computed on request only.

    Args:
        norms: (P,) the 2-norm of each weight tensor's gradient.
    """
    return float(_tokens(norms).mean())


def auc(forget: npt.ArrayLike, holdout: npt.ArrayLike) -> float:
    """How well an attack's scores tell forget texts from holdout texts.

    Formula: P(score of a forget text < score of a holdout text), over all pairs; equal scores count half.
    Range: 0 to 1; 1 = every forget text looks better known than every holdout text, 0.5 = chance.
    Better: near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5; far below it the forgetting
    itself gives the texts away.
    Source: open-unlearning has the same direction; muse_bench counts the other way round (1 - AUC).

    Args:
        forget: (N,) scores of the texts that were to be forgotten.
        holdout: (M,) scores of texts that no model read.

    Raises:
        ValueError: If one of them is empty or holds a value that is not finite.
    """
    return float(wins(forget, holdout).mean())


def auc_interval(forget: npt.ArrayLike, holdout: npt.ArrayLike, draws: int, seed: int) -> intervals.Interval:
    """Bootstrap interval of `auc`: each draw takes as many forget and as many holdout texts anew, independently."""
    return intervals.interval(auc_draws(wins(forget, holdout), draws, seed))


def auc_draws(pairs: Floats, draws: int, seed: int) -> Floats:
    """(draws,) AUCs of texts drawn with replacement from both kinds.

    Args:
        pairs: (N, M), see `wins`.
        draws: how many.
        seed: owner of the draws; two models' AUCs on the same texts get the same draws.
    """
    texts, others = pairs.shape
    left = intervals.draw(texts, draws, seed, "forget").astype(np.float64)
    right = intervals.draw(others, draws, seed, "holdout").astype(np.float64)
    return np.einsum("dm,dm->d", left @ pairs, right) / (texts * others)


def wins(forget: npt.ArrayLike, holdout: npt.ArrayLike) -> Floats:
    """(N, M): 1 where the forget text scores lower than the holdout text, 0.5 where equal, 0 where higher."""
    members, others = (np.asarray(scores, dtype=np.float64) for scores in (forget, holdout))
    for name, scores in (("forget", members), ("holdout", others)):
        if not scores.size:
            raise ValueError(f"membership: there are no {name} texts, want at least one")
        if not np.isfinite(scores).all():
            raise ValueError(
                f"membership: {(~np.isfinite(scores)).sum()} of {scores.size} {name} scores are not finite"
            )
    return (members[:, None] < others) + 0.5 * (members[:, None] == others)


def scores(
    text: str,
    logprobs: Sequence[float],
    means: Sequence[float] | None = None,
    deviations: Sequence[float] | None = None,
    reference_logprobs: Sequence[float] | None = None,
    norm: float | None = None,
) -> dict[str, float]:
    """A text's score under each attack for which the numbers are there."""
    found: dict[str, float] = {"loss": loss(logprobs), "zlib": zlib(logprobs, text), "min_k": min_k(logprobs)}
    if means is not None and deviations is not None:
        found["min_k_plus_plus"] = min_k_plus_plus(logprobs, means, deviations)
    if reference_logprobs is not None:
        found["reference"] = reference(logprobs, reference_logprobs)
    if norm is not None:
        found["gradient_norm"] = norm
    return found


def _tokens(values: npt.ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if not found.size:
        raise ValueError("membership: the text has no scored token, want at least one")
    return found


def _lowest(values: Floats, share: float) -> Floats:
    count = max(1, int(len(values) * share))
    return np.partition(values, count - 1)[:count]


CARDS: Mapping[str, Callable[..., Any]] = {f"membership/{name}": globals()[name] for name in ATTACKS}
