"""How much of an answer the model still holds, token by token, and how far it moved from what it was.

From the records' token statistics alone; each docstring is its metric card. Logs of other repositories have none.
"""

import numpy as np
import numpy.typing as npt

from tif.records.types import RecordSet, TokenStats

Floats = npt.NDArray[np.float64]


def values(records: RecordSet) -> dict[str, Floats]:
    """`exact_memorization`, `extraction_strength` and `kl` of each record: (N,) each; those that were recorded.

    Raises:
        ValueError: If only some records have token statistics.
    """
    stats = [r.stats for r in records.records]
    known = [s for s in stats if s is not None]
    if not known:
        return {}
    if len(known) < len(stats):
        missing = next(r.id for r in records.records if r.stats is None)
        raise ValueError(f"{records.name}: {len(stats) - len(known)} of {len(stats)} have no stats: {missing}, ...")
    found = {"exact_memorization": exact_memorization(known), "extraction_strength": extraction_strength(known)}
    return found | ({"kl": kl(known)} if all(s.kl is not None for s in known) else {})


def exact_memorization(stats: list[TokenStats]) -> Floats:
    """Share of the answer's tokens that the model would have said itself, each after the true ones before it.

    Formula: mean over an answer's tokens of [argmax = token]; then the mean over answers. The last scored token (the
    end token, unless the text was cut) is left out.
    Range: 0 to 1. Better: lower on forget, higher on retain.
    Perfect unlearning: the retain model's value (not 0: common words are guessed).
    Source: Tirumala et al., arXiv 2205.10770; locuslab/open-unlearning src/evals/metrics/memorization.py.

    Returns:
        (N,), a value an answer; 0 where nothing but the end token was scored.
    """
    return np.array([float(np.mean(s.top[:-1])) if len(s.top) > 1 else 0.0 for s in stats])


def extraction_strength(stats: list[TokenStats]) -> Floats:
    """How little of the answer one has to give for the model to say the rest.

    Formula: 1 - k / n with n the answer's tokens and k the shortest prefix after which every token is the argmax (after
    the true ones before it); then the mean over answers. The last scored token is left out, as for exact_memorization.
    Range: 0 (the last token is not predicted) to 1 (all are). Better: lower on forget.
    Perfect unlearning: the retain model's value.
    Source: Carlini et al., arXiv 2012.07805; locuslab/open-unlearning src/evals/metrics/memorization.py, where an
    answer of which nothing matches has 1 / n instead of 0.

    Returns:
        (N,), a value an answer; 0 where nothing but the end token was scored.
    """
    found = []
    for s in stats:
        top = s.top[:-1]
        rest = next((i for i, hit in enumerate(reversed(top)) if not hit), len(top))
        found.append(rest / len(top) if top else 0.0)
    return np.array(found)


def kl(stats: list[TokenStats]) -> Floats:
    """How far the model's predictions moved from the original's.

    Formula: mean over an answer's tokens, the end token too, of KL(original || model) of the next token's
    distribution; then the mean over answers.
    Range: 0 to infinity, nats a token. Better: lower on retain, real_authors and world_facts; none on forget.
    Perfect unlearning: near 0 on retain, above 0 on forget.
    Source: locuslab/tofu and NPO average it over all positions, prompt and padding too; here the answer's only.

    Returns:
        (N,), a value an answer.
    """
    return np.array([np.mean(s.kl) for s in stats if s.kl is not None])
