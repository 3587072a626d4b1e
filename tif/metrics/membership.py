"""Membership inference: can one tell from the model that it read a text?

An attack gives each text a score, lower where the model knows the text better; `auc` compares the
scores of texts that were to be forgotten with those of holdout texts of the same kind that no model
read. The AUC is the reported number: an attack's card takes range, direction and perfect value from
the card of `auc`. Shapes: K scored tokens of a text, N forget texts, M holdout texts.
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tif.data.samples import author_of_row
from tif.metrics import intervals
from tif.metrics.intervals import Groups, leave_one_out, measure_spread
from tif.metrics.registry import metrics_reading, register_metric
from tif.metrics.values import Floats, ScoredText, as_tokens
from tif.records.comparability import align_records
from tif.records.types import Evaluation, Record, RecordSet, TokenStats

FORGET, HOLDOUT = "privleak_forget", "privleak_holdout"
COMPARED = (FORGET, HOLDOUT)  # sets whose texts are told apart, and compared with the retain model
COMPARED_QUESTIONS = ("forget", "holdout")  # of benchmarks of questions, where they have a holdout
MIN_K_SHARE = 0.4  # of a text's tokens that Min-K reads, as MUSE and open-unlearning report it
LEAST_VARIANCE = 1e-6  # of a token's log-probability, as in open-unlearning: no division by 0


@register_metric("membership/loss", "AUC, loss", better="→ ½", reads="scored text")
def loss(text: ScoredText) -> float:
    """Return how surprised the model is by a text, per token.

    Formula: -mean of log p over the text's tokens. Source: Yeom et al. 2018 (arXiv 1709.01604).
    """
    return float(-as_tokens(text.logprobs).mean())


@register_metric("membership/zlib", "AUC, zlib", better="→ ½", reads="scored text")
def zlib_ratio(text: ScoredText) -> float:
    """Return the loss relative to the text's compressed size: plain text is always likely.

    Formula: loss / number of bytes of the UTF-8 text compressed by zlib. Source: Carlini et al.
    2021 (arXiv 2012.07805); muse_bench and open-unlearning have the same quotient.
    """
    return loss(text) / len(zlib.compress(text.text.encode("utf-8")))


@register_metric("membership/min_k", "AUC, Min-K", better="→ ½", reads="scored text")
def min_k(text: ScoredText, share: float = MIN_K_SHARE) -> float:
    """Return how surprised the model is by a text's least likely tokens.

    Formula: -mean of log p over the 40 % of tokens with the lowest log p (rounded down, at least
    one). Source: Shi et al. 2024 (arXiv 2310.16789); all tokens but the text's first, as in
    muse_bench. open-unlearning drops the last one too: its AUC and PrivLeak differ a little.
    """
    return float(-_select_lowest(as_tokens(text.logprobs), share).mean())


@register_metric("membership/min_k_plus_plus", "AUC, Min-K++", better="→ ½", reads="scored text")
def min_k_plus_plus(text: ScoredText, share: float = MIN_K_SHARE) -> float:
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


@register_metric("membership/reference", "AUC, reference", better="→ ½", reads="scored text")
def reference(text: ScoredText) -> float | None:
    """Return the loss compared with that of a model that never saw the text.

    Formula: loss - loss of the reference model, nats a token. Source: Carlini et al. 2021 (arXiv
    2012.07805); the difference as in open-unlearning, muse_bench has the quotient.
    """
    if text.reference_logprobs is None:
        return None
    return loss(text) - loss(ScoredText(text.text, text.reference_logprobs))


@register_metric(
    "membership/gradient_norm", "AUC, gradient norm", better="→ ½", reads="scored text"
)
def gradient_norm(text: ScoredText) -> float | None:
    """Return how much the model would change if it learned the text.

    Formula: mean over the model's weight tensors of the 2-norm of the gradient of the text's loss.
    Source: Wang et al. 2024 (arXiv 2402.17012), in the form of open-unlearning. It costs a backward
    pass a text, so it is computed on request only.
    """
    return text.gradient_norm


def compared_sets(evaluation: Evaluation) -> tuple[str, str] | None:
    """Return the sets that are told apart: forget and holdout; None where there are none."""
    for names in (COMPARED, COMPARED_QUESTIONS):
        if all(name in evaluation.sets for name in names):
            return names
    return None


def attack_scores(
    evaluation: Evaluation,
    reference: Evaluation | None = None,
    gradient_norms: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, tuple[Floats, Floats]]:
    """Return the scores of forget (N,) and holdout (M,) texts under each attack.

    Attacks whose numbers are missing are left out; {} where there are no such texts. A log of
    open-unlearning has the scores themselves.

    Args:
        evaluation: of the model.
        reference: another model's, of the same texts, for the attack that compares with one.
        gradient_norms: one for each text, by set, for the attack of that name.

    Raises:
        ValueError: If the reference model's texts differ, or a text has no token statistics.
    """
    names = compared_sets(evaluation)
    if names is None:
        pairs = evaluation.attack_scores.items()
        return {name: (np.array(forget), np.array(holdout)) for name, (forget, holdout) in pairs}
    norms, sets = gradient_norms or {}, evaluation.sets
    forget_texts, holdout_texts = (
        _scored_texts(sets[name], reference, norms.get(name)) for name in names
    )
    scores = {}
    for name, attack in metrics_reading("scored text").items():
        forget = [attack.function(text) for text in forget_texts]
        holdout = [attack.function(text) for text in holdout_texts]
        if None not in (*forget, *holdout):
            scores[name] = np.array(forget, np.float64), np.array(holdout, np.float64)
    return scores


def min_k_scores(records: RecordSet) -> Floats:
    """Return the Min-K score of each text of a set: (N,)."""
    return np.array([min_k(text) for text in _scored_texts(records)], dtype=np.float64)


def _scored_texts(
    records: RecordSet,
    reference: Evaluation | None = None,
    gradient_norms: Sequence[float] | None = None,
) -> list[ScoredText]:
    others: Sequence[Record] = ()
    if reference is not None:
        known, matching = Evaluation("", {records.name: records}), None
        if records.name in reference.sets:
            matching = align_records(known, reference, records.name)
        if matching is None:
            problem = f"the reference model's {records.name} has other texts"
            raise ValueError(f"membership/reference: {problem}")
        others = matching.records
    texts = []
    for i, record in enumerate(records.records):
        stats = _require_stats(record)
        other = _require_stats(others[i]).logprob if others else None
        norm = gradient_norms[i] if gradient_norms else None
        texts.append(ScoredText(record.answer, stats.logprob, stats.mean, stats.std, other, norm))
    return texts


def _require_stats(record: Record) -> TokenStats:
    if record.stats is None:
        raise ValueError(f"record {record.id}: no log-probabilities of its tokens, want its stats")
    return record.stats


@register_metric("membership/<attack>", "AUC", better="→ ½")
def auc(forget: npt.ArrayLike, holdout: npt.ArrayLike) -> float:
    """Return how well an attack's scores tell forget texts from holdout texts.

    Formula: P(score of a forget text < score of a holdout text) over all pairs; equal scores count
    half. Range: 0 to 1; 1 = every forget text looks better known than every holdout text, 0.5 =
    chance. Better: near the retain model's. Perfect unlearning: the retain model's AUC, about 0.5;
    far below it the forgetting itself gives the texts away. Source: open-unlearning has the same
    direction; muse_bench counts the other way round (1 - AUC).

    `forget`, `holdout`: (N,) and (M,) scores. scikit-learn's roc_auc_score is the same up to the
    last digit (tested); the interval needs the pairs in any case.

    Raises:
        ValueError: If one of them is empty or holds a value that is not finite.
    """
    return float(compare_pairs(forget, holdout).mean())


def auc_interval(
    forget: npt.ArrayLike, holdout: npt.ArrayLike, groups: Sequence[Groups]
) -> intervals.Interval | None:
    """Return the interval of `auc`; `groups` are those of forget (N,) and holdout (M,) texts.

    With one text a group, the squared error is that of DeLong et al. 1988 (tested); with several,
    that of Obuchowski 1997.
    """
    pairs = compare_pairs(forget, holdout)
    sides = zip(split_pairs(pairs), groups, strict=True)
    spreads = [measure_spread(leave_one_out(side, names), names) for side, names in sides]
    return intervals.t_interval(float(pairs.mean()), spreads, intervals.SHARE)


def split_pairs(pairs_NM: Floats) -> tuple[Floats, Floats]:
    """Return (N,) and (M,) values of the texts of each kind, whose means both are the AUC."""
    return pairs_NM.mean(1), pairs_NM.mean(0)


def compared_groups(evaluation: Evaluation) -> tuple[Groups, Groups]:
    """Return the groups of forget (N,) and holdout (M,) texts, as of `attack_scores`."""
    names = compared_sets(evaluation)
    if names is not None:
        forget, holdout = (evaluation.sets[name].groups for name in names)
        return forget, holdout
    # A log of open-unlearning has the scores alone, in the order of TOFU's rows.
    scores = next(iter(evaluation.attack_scores.values()), ((), ()))
    forget, holdout = ([author_of_row(row) for row in range(len(side))] for side in scores)
    return forget, holdout


def compare_pairs(forget: npt.ArrayLike, holdout: npt.ArrayLike) -> Floats:
    """Return (N, M): 1 where the forget text scores lower, 0.5 where equal, 0 where higher."""
    scores = {"forget": np.asarray(forget, dtype=np.float64)}
    scores["holdout"] = np.asarray(holdout, dtype=np.float64)
    for name, values in scores.items():
        if not values.size:
            raise ValueError(f"membership: there are no {name} texts, want at least one")
        broken = int((~np.isfinite(values)).sum())
        if broken:
            raise ValueError(f"membership: {broken} of {values.size} {name} scores are not finite")
    forget_N1 = scores["forget"][:, None]
    return (forget_N1 < scores["holdout"]) + 0.5 * (forget_N1 == scores["holdout"])
