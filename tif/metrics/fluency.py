"""Is what the model says still language? Repetition and n-gram entropy of generations; no model needed.

Unlearning that goes too far leaves a model that repeats itself or babbles: ROUGE against the answer sees neither.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
METRICS = ("repetition", "entropy", "clean")


def repetition(text: str, n: int = 4) -> float:
    """How much of a generation is said twice.

    Formula: 1 - (different 4-grams of words) / (all of them), mean over the generations of a set; 0 for a generation
    of fewer than five words.
    Range: 0 to 1. Better: lower. Perfect unlearning: the retain model's value, near 0 for a sound model.
    Source: "seq-rep-4" of Welleck et al. 2020 (1908.04319), on words, not tokens, so that models compare.
    """
    found = _ngrams(words(text), n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def entropy(text: str) -> float:
    """How varied the words of a generation are.

    Formula: mean of 2/3 H2 and 4/3 H3, where Hn is the entropy, in bits, of the frequencies of the generation's
    n-grams of words; mean over the generations of a set; 0 for one without a bigram.
    Range: 0 to log2 of the text's length. Better: higher, for texts of like length. Perfect unlearning: the retain
    model's value.
    Source: "generation entropy" of Meng et al. 2022 (2202.05262, kmeng01/rome eval_utils_counterfact.py), with words
    and punctuation marks cut by a regular expression in place of nltk's tokenizer.
    """
    parts = words(text)
    return float(np.mean([2 / 3 * _entropy(_ngrams(parts, 2)), 4 / 3 * _entropy(_ngrams(parts, 3))]))


def clean(probabilities: Sequence[float]) -> float:
    """How sure a classifier is that the generations are no gibberish.

    Formula: mean over generations of the classifier's probability of its first class ("clean").
    Range: 0 to 1. Better: higher. Perfect unlearning: the retain model's value.
    Source: open-unlearning takes madhurjindal/autonlp-Gibberish-Detector-492513457; computed only where
    `fluency.classifier` names a model.
    """
    return float(cleans(probabilities).mean())


def cleans(probabilities: Sequence[float]) -> Floats:
    """Each generation's probability, see `clean`: (N,)."""
    return np.array(probabilities, dtype=np.float64)


def values(texts: Sequence[str]) -> dict[str, Floats]:
    """Repetition and entropy of each text: (N,) each.

    Raises:
        ValueError: If there are no texts.
    """
    if not texts:
        raise ValueError("fluency: there are no generations, want at least one")
    return {
        "repetition": np.array([repetition(text) for text in texts]),
        "entropy": np.array([entropy(text) for text in texts]),
    }


def words(text: str) -> list[str]:
    """Words and punctuation marks, as they are written."""
    return re.findall(r"\w+|[^\w\s]", text)


def _ngrams(parts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def _entropy(ngrams: Sequence[tuple[str, ...]]) -> float:
    share = np.array(list(Counter(ngrams).values()), dtype=np.float64) / max(1, len(ngrams))
    return float(-(share * np.log2(share)).sum())


CARDS = {f"fluency/{name}": globals()[name] for name in METRICS}
