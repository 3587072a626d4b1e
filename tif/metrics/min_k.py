"""Min-K and Min-K++: membership attacks that read a text's least likely tokens.

PrivLeak is computed from Min-K. Registered and called by metrics/membership.py.
"""

import numpy as np

from tif.metrics.values import Floats, ScoredText, as_tokens

SHARE = 0.4  # of a text's tokens that are read, as MUSE and open-unlearning report it
LEAST_VARIANCE = 1e-6  # of a token's log-probability, as in open-unlearning: no division by 0


def min_k(text: ScoredText, share: float = SHARE) -> float:
    """Return how surprised the model is by a text's least likely tokens.

    Formula: -mean of log p over the 40 % of tokens with the lowest log p (rounded down, at least
    one). Source: Shi et al. 2024 (arXiv 2310.16789); all tokens but the text's first, as in
    muse_bench. open-unlearning drops the last one too: its AUC and PrivLeak differ a little.
    """
    return float(-_select_lowest(as_tokens(text.logprobs), share).mean())


def min_k_plus_plus(text: ScoredText, share: float = SHARE) -> float:
    """Return Min-K with each token measured against what else could have stood there.

    Formula: as min_k with (log p - mu) / sigma instead of log p; mu and sigma are mean and standard
    deviation of the log-probabilities of the vocabulary at that position, under the model's own
    distribution. Source: Zhang et al. 2025 (arXiv 2404.02936); sigma at least 0.001 as in
    open-unlearning.
    """
    deviations = np.maximum(as_tokens(text.deviations), LEAST_VARIANCE**0.5)
    scores = (as_tokens(text.logprobs) - as_tokens(text.means)) / deviations
    return float(-_select_lowest(scores, share).mean())


def _select_lowest(values: Floats, share: float) -> Floats:
    count = max(1, int(len(values) * share))
    return np.partition(values, count - 1)[:count]
