"""Membership inference: can one tell from the model that it once read the forget samples?

Six attacks give each answer a score, lower where the model knows the answer better; those of the
forget samples are compared with those of holdout samples, of the same kind, that no model read. A
question's value is the share of holdout answers that look less known than its own; its mean over
the questions is the AUC. The retain model's AUC, near 0.5, is what perfect unlearning reaches.

Sources: see metrics/membership.py; the comparison on TOFU is that of open-unlearning (TOFU_MIA:
forget10 against holdout10). Differences: the attack `reference` compares with the retain model; the
interval of a leak draws forget questions only, the holdout samples stay.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tif.audit.attack import AttackInputs, AttackResult, Subject, attack
from tif.config.errors import ConfigError
from tif.data.samples import Sample
from tif.evaluation.token_stats import gradient_norms, score_texts
from tif.metrics import membership
from tif.metrics.membership import min_k
from tif.metrics.muse import relative_leak
from tif.metrics.registry import metrics_reading
from tif.metrics.values import Floats, ScoredText

HEADLINE = "AUC of min_k"
PRIVLEAK = "PrivLeak"
Score = Callable[[ScoredText], float | None]


def check(inputs: AttackInputs) -> None:
    """Raise ConfigError unless the benchmark has samples that no model read."""
    if not inputs.benchmark.holdout:
        raise ConfigError(
            f"attacks: membership wants holdout samples that no model read, and "
            f"{inputs.benchmark.name} has none; want data.holdout=holdout10 (tofu), more names "
            "(fictitious: fewer authors), or other attacks"
        )


@attack(
    "membership", headline=lambda settings: HEADLINE, reads=("retain",), is_default=False,
    action=lambda settings: "telling forget from holdout answers", check=check,
)  # fmt: skip
def run(subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return for each attack how much better known each forget answer looks than the holdout's."""
    forget = inputs.forget_questions()
    holdout = inputs.benchmark.holdout[: inputs.settings.eval.max_samples.forget]
    texts = read_texts(subject, inputs, [*forget, *holdout])
    measures: dict[str, list[float | None]] = {}
    for name, metric in metrics_reading("scored text").items():
        score = metric.function
        measures[f"AUC of {name}"] = _compare(score, texts, len(forget)).mean(1).tolist()
    auc = _compare(min_k, texts, len(forget)).mean()
    retain_auc = _compare(_min_k_of_reference, texts, len(forget)).mean()
    numbers = {PRIVLEAK: relative_leak(float(1 - auc), float(1 - retain_auc))}
    return AttackResult([sample.id for sample in forget], measures, numbers=numbers)


def _compare(score: Score, texts: Sequence[ScoredText], forget: int) -> Floats:
    """Return (N, M): 1 where a forget text scores lower than a holdout text, 0.5 where equal."""
    scores = np.array([score(text) for text in texts], dtype=np.float64)
    return membership.compare_pairs(scores[:forget], scores[forget:])


def _min_k_of_reference(text: ScoredText) -> float:
    assert text.reference_logprobs is not None
    return min_k(ScoredText(text.text, text.reference_logprobs))


def read_texts(
    subject: Subject, inputs: AttackInputs, samples: Sequence[Sample]
) -> list[ScoredText]:
    """Return what the attacks know of the samples' answers."""
    texts = [subject.encoder.encode(sample) for sample in samples]
    wanted = [True] * len(texts)
    stats = score_texts(subject.model, texts, wanted, inputs.setup(subject, subject.model))
    reference = stats
    if subject.role != "retain":
        retain = inputs.subjects["retain"]
        model = retain.load()
        retain_texts = [retain.encoder.encode(sample) for sample in samples]
        reference = score_texts(model, retain_texts, wanted, inputs.setup(retain, model))
        del model
    norms = gradient_norms(subject.model, texts, subject.encoder.pad_id)
    scored = []
    for sample, score, reference_score, norm in zip(samples, stats, reference, norms, strict=True):
        assert score.stats is not None
        assert reference_score.stats is not None
        columns = score.stats.logprob, score.stats.mean, score.stats.std
        reference_logprobs = reference_score.stats.logprob
        scored.append(ScoredText(sample.answer, *columns, reference_logprobs, norm))
    return scored
