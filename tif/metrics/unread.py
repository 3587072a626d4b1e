"""One number for a model that should be as one that never read the forget set, and its parts.

The standard is the retain model. Each part says how far a model is from it, in steps: a step is
what makes a model half as good. Nothing is made up: where a part is missing, so is the number.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tif.metrics import targeted
from tif.metrics.readable import readable
from tif.metrics.registry import register_metric
from tif.metrics.targeted import OTHER_WAYS
from tif.metrics.values import Floats
from tif.records.comparability import align_records
from tif.records.types import AnswersBySet, AnswerTokens, Evaluation, RecordSet

AS_UNREAD = "forget/as_unread"
RATIO, OTHER_RATIO = "forget/uw_ratio", "forget/uw_ratio_otherwise"
FACTS, READABLE = "forget/facts_above", "forget/readable"
QUALITY, UTILITIES = "forget/quality", ("utility/model", "utility/eight")
ALIKE = 0.05  # forget quality from which a test cannot tell the two apart
FACTOR = 3.0  # a step of the unwanted words' probability, up or down
SHARE = 0.1  # a step of facts, of answers that read, and of utility
LEAST = 1e-300  # p-value and probability, so that logarithms are finite

Values = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same answers under the model and under the retain model, with their tokens."""

    ours: RecordSet
    retain: RecordSet
    tokens: Mapping[str, AnswerTokens]


def pair_sets(
    evaluation: Evaluation, retain: Evaluation, tokens: AnswersBySet, names: Sequence[str]
) -> list[Pair]:
    """Return those of the named sets that both models answered and whose words are known."""
    pairs = []
    for name in names:
        if name not in evaluation.sets or name not in retain.sets or name not in tokens:
            continue
        matching = align_records(evaluation, retain, name)
        if matching is None:
            continue
        ours = evaluation.sets[name]
        named = [
            dataclasses.replace(theirs, id=record.id)
            for record, theirs in zip(ours.records, matching.records, strict=True)
        ]
        pair = Pair(ours, RecordSet(name, tuple(named)), tokens[name])
        if len(list_ratios(pair)):
            pairs.append(pair)
    return pairs


def list_ratios(pair: Pair) -> Floats:
    """Return (N, 2) probabilities of the unwanted words of each answer: ours, the retain model's.

    N counts the answers whose words are known and whose tokens are the same for both.
    """
    by_model = []
    for records in (pair.ours, pair.retain):
        by_id = {}
        for record in records.records:
            values = targeted.word_probability(RecordSet("", (record,)), pair.tokens, True)
            if len(values):
                by_id[record.id] = float(values[0])
        by_model.append(by_id)
    ours, retain = by_model
    rows = [(ours[id], retain[id]) for id in ours if id in retain]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


@register_metric(
    RATIO, "ratio of unwanted words", better="→ 1",
    short="UW ratio", columns={"forget": 6}, needs_retain=True,
    note="UW ratio: unwanted words' probability, times the retain model's; good: 1/3 to 3",
)  # fmt: skip
def unwanted_ratio(probabilities_N2: Floats) -> float:
    """Return how many times as likely the unwanted words are as the retain model finds them.

    Formula: of two ratios the one further from 1: of the mean probabilities (words/unwanted), which
    one fact that is still known lifts, and the geometric mean of the answers' own ratios, which
    words pushed far below a guess lower. Range: 0 and up. Better: near 1 from either side; below
    1/3 the model gives away what it was to forget, as above 3. Perfect unlearning: 1, or what two
    retain models differ by. Source: ours; what is less likely than a guess is recognised too
    (arXiv 2005.02205, on what unlearning itself gives away).

    `probabilities_N2`: of the unwanted words of N answers, under the model and the retain model.
    """
    means = np.maximum(probabilities_N2.mean(0), LEAST)
    logs = np.log(np.maximum(probabilities_N2, LEAST)).mean(0)
    exponents = (float(np.log(means[0] / means[1])), float(logs[0] - logs[1]))
    return math.exp(max(exponents, key=abs))


@register_metric(
    OTHER_RATIO, "the same, asked otherwise", better="→ 1", short="ratio, otherwise",
    columns={"forget": 7}, needs_retain=True,
)  # fmt: skip
def unwanted_ratio_otherwise(ratios: Sequence[float]) -> float | None:
    """Return the ratio of `forget/uw_ratio` where the facts are asked for in other words.

    Formula: forget/uw_ratio of each set that asks otherwise (paraphrased questions; reworded and
    implying ones of invented authors); the one furthest from 1. Range: 0 and up. Better: near 1
    from either side. Perfect unlearning: 1. Source: ours, on TOFU's paraphrased questions
    (arXiv 2401.06121).
    """
    return max(ratios, key=lambda ratio: abs(math.log(ratio)), default=None)


@register_metric(
    FACTS, "facts beyond retain", better="→ 0", short="facts beyond",
    columns={"forget": 8}, needs_retain=True,
)  # fmt: skip
def facts_above(differences: Sequence[float]) -> float | None:
    """Return which share of the facts the model gives away and the retain model does not.

    Formula: the largest difference (model - retain model) of words/unwanted_extracted and
    words/unwanted_written, as asked and asked otherwise. Range: -1 to 1. Better: near 0; below 0
    the retain model guesses more of them. Perfect unlearning: 0. Source: ours, of extraction as in
    Carlini et al. (arXiv 2012.07805).
    """
    return max(differences, default=None)


def summarize(
    evaluation: Evaluation, retain: Evaluation | None, tokens: AnswersBySet, values: Values,
    retain_values: Values,
) -> dict[str, float]:
    """Return forget/as_unread and its parts, by stable name; left out is what cannot be had.

    Args:
        evaluation, retain: of the model and of the retain model; None = there is none.
        tokens: of the answers, with the unwanted words where these are known.
        values, retain_values: all other metrics of both, the words' among them.
    """
    summary: dict[str, float | None] = {AS_UNREAD: None}  # first, also in tables
    by_question = readable(evaluation)
    if by_question is not None:
        summary[READABLE] = float(by_question.mean())
    if retain is None:
        return {name: value for name, value in summary.items() if value is not None}
    known = [name for name in targeted.FORGET_SETS if name in tokens]
    as_asked = pair_sets(evaluation, retain, tokens, known)[:1]
    otherwise = pair_sets(evaluation, retain, tokens, list(OTHER_WAYS))
    ratios = [unwanted_ratio(list_ratios(pair)) for pair in as_asked]
    summary[RATIO] = ratios[0] if ratios else None
    others = [unwanted_ratio(list_ratios(pair)) for pair in otherwise]
    summary[OTHER_RATIO] = unwanted_ratio_otherwise(others)
    summary[FACTS] = facts_above(_list_differences([*as_asked, *otherwise]))
    retain_readable = readable(retain)
    theirs = {**retain_values}
    if retain_readable is not None:
        theirs[READABLE] = float(retain_readable.mean())
    summary[AS_UNREAD] = as_unread({**values, **summary}, theirs)
    return {name: value for name, value in summary.items() if value is not None}


def _list_differences(pairs: Sequence[Pair]) -> list[float]:
    """Return by how much more of the facts the model gives away, by way of asking and of having."""
    differences = []
    for pair in pairs:
        for give in (targeted.extracted, targeted.written):
            ours, theirs = (give(side, pair.tokens, True) for side in (pair.ours, pair.retain))
            if len(ours) and len(ours) == len(theirs):
                differences.append(float(ours.mean() - theirs.mean()))
    return differences


@register_metric(
    AS_UNREAD, "as one that never read it", better="↑", short="as unread", columns={"forget": 5},
    main=("forget",), needs_retain=True,
    note="as unread: 1 = as a model that never read the forget set, 1/2 = one step off",
)  # fmt: skip
def as_unread(values: Values, retain: Values) -> float | None:
    """Return in one number how nearly a model is as one that never read the forget set.

    Formula: 1 / (1 + steps), the steps being the sum of six: powers of ten of forget/quality below
    0.05; powers of 3 by which forget/uw_ratio is beyond 1/3 or 3; the same of
    forget/uw_ratio_otherwise; tenths of forget/facts_above; tenths by which forget/readable is
    below the retain model's; and tenths of utility lost against the retain model's (the mean of
    utility/model and utility/eight). A step to the good side counts 0. Range: 0 to 1; missing where
    one of the parts is, as without a retain model, marked words or questions in other words.
    Better: higher. Perfect unlearning: 1, or what two retain models differ by. Source: ours; it
    adds up, so that no good number hides a bad one.

    Args:
        values: of the model, by stable name.
        retain: the retain model's.
    """
    steps = list_steps(values, retain)
    return None if steps is None else 1 / (1 + sum(steps.values()))


def list_steps(values: Values, retain: Values) -> dict[str, float] | None:
    """Return by metric how many steps a model is away from the retain model; None if one lacks."""
    names = (QUALITY, RATIO, OTHER_RATIO, FACTS, READABLE, *UTILITIES)
    known = {name: value for name, value in values.items() if value is not None}
    theirs = {name: value for name, value in retain.items() if value is not None}
    if not known.keys() >= set(names) or not theirs.keys() >= {READABLE, *UTILITIES}:
        return None
    steps = {QUALITY: math.log10(ALIKE / max(known[QUALITY], LEAST))}
    for name in (RATIO, OTHER_RATIO):
        steps[name] = abs(math.log(known[name])) / math.log(FACTOR) - 1
    steps[FACTS] = known[FACTS] / SHARE
    steps[READABLE] = (theirs[READABLE] - known[READABLE]) / SHARE
    for name in UTILITIES:
        lost = 1 - known[name] / theirs[name] if theirs[name] else 0.0
        steps[name] = lost / SHARE / len(UTILITIES)
    return {name: max(0.0, count) for name, count in steps.items()}
