"""Whether generations are still language: repetition and n-gram entropy, which need no model.

Unlearning that goes too far leaves a model that repeats itself or babbles, which ROUGE against the
answer does not see. A set's number is the mean over its generations.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tif.metrics.registry import metrics_reading, register_metric
from tif.metrics.values import Floats


@register_metric(
    "<set>/repetition", "repetition", better="↓", reads="text", columns={}, in_runs=False
)
def repetition(text: str, n: int = 4) -> float:
    """Return which share of a generation's 4-grams stood in it before.

    Formula: 1 - (different 4-grams of words) / (all 4-grams); 0 for a generation of fewer than four
    words. Range: 0 to 1. Better: lower. Perfect unlearning: the retain model's value, near 0 for a
    sound model. Source: "seq-rep-4" of Welleck et al. 2020 (arXiv 1908.04319), on words instead of
    tokens, so that models compare.
    """
    ngrams = _list_ngrams(split_words(text), n)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


@register_metric(
    "<set>/entropy", "n-gram entropy", better="↑", unit="bits", reads="text", columns={},
    in_runs=False,
)  # fmt: skip
def entropy(text: str) -> float:
    """Return how varied the words of a generation are.

    Formula: mean of 2/3 H2 and 4/3 H3, where Hn is the entropy, in bits, of the frequencies of the
    generation's n-grams of words; 0 for a generation without a bigram. Range: 0 to log2 of the
    text's length. Better: higher, for texts of similar length. Perfect unlearning: the retain
    model's value. Source: "generation entropy" of Meng et al. 2022 (arXiv 2202.05262,
    kmeng01/rome eval_utils_counterfact.py), with words and punctuation marks cut by a regular
    expression instead of nltk's tokenizer.
    """
    words = split_words(text)
    bigrams = _frequency_entropy(_list_ngrams(words, 2))
    trigrams = _frequency_entropy(_list_ngrams(words, 3))
    return float(np.mean([2 / 3 * bigrams, 4 / 3 * trigrams]))


@register_metric(
    "<set>/clean", "no gibberish", better="↑", reads="texts", columns={}, in_runs=False
)
def clean(probabilities: Sequence[float]) -> Floats:
    """Return how sure a classifier is that each generation is no gibberish.

    Formula: the classifier's probability of its class "clean" (or of its first class).
    Range: 0 to 1. Better: higher. Perfect unlearning: the retain model's value. Source:
    open-unlearning uses madhurjindal/autonlp-Gibberish-Detector-492513457; computed only where
    `fluency.classifier` names a model (evaluation/fluency_classifier.py).
    """
    return np.array(probabilities, dtype=np.float64)


def question_values(
    texts: Sequence[str], probabilities: Sequence[float] | None = None
) -> dict[str, Floats]:
    """Return each metric of each generation: (N,) each; `clean` where there are probabilities.

    Raises:
        ValueError: If there are no texts.
    """
    if not texts:
        raise ValueError("fluency: there are no generations, want at least one")
    values = {}
    for key, registered in metrics_reading("text").items():
        values[key] = np.array([registered.function(text) for text in texts])
    if probabilities is not None:
        values["clean"] = clean(probabilities)
    return values


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, in order."""
    return re.findall(r"\w+|[^\w\s]", text)


def _list_ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _frequency_entropy(ngrams: Sequence[tuple[str, ...]]) -> float:
    shares = np.array(list(Counter(ngrams).values()), dtype=np.float64) / max(1, len(ngrams))
    return float(-(shares * np.log2(shares)).sum())
