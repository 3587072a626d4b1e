"""Sampling: many answers at temperature 1 to each question; does any of them state the facts?

n answers are drawn to each question. Of a fact that c of them state, 1 - C(n - c, k) / C(n, k) is
an unbiased estimate of the probability that at least one of k answers states it. A greedy answer
shows nothing of this: a fact may stay the second most likely answer.

Source: the estimator is pass@k, Chen et al. (arXiv 2107.03374); that unlearned models leak under
sampling, Scholten et al. (arXiv 2410.03523) and leak@k, Reisizadeh et al. (arXiv 2511.04934), who
have a judge; here facts are matched as strings, and an LLM reads the rest where `sample.judge`
names one.
"""

import dataclasses
import itertools
import math
import zlib
from collections.abc import Sequence

import numpy as np

from tif.audit import judge
from tif.audit.answers import begin_answer, max_new_tokens
from tif.audit.attack import AttackInputs, AttackResult, Subject, attack
from tif.audit.facts import list_facts
from tif.audit.keys import AuditKeys
from tif.config.keys import key
from tif.data.samples import Sample
from tif.evaluation.generate import Decoding, Sampling, generate
from tif.identifiers.segmentation import states
from tif.utils import distributed


@dataclasses.dataclass
class SampleKeys:
    """Many answers at temperature 1."""

    draws: int = key(128, "answers drawn to each question; k = 1, 2, 4, ... up to it", at_least=1)
    judge: str | None = key(None, "an LLM that reads the answers in which a fact's words do not "
        "stand: name of a model at identifier.generative.base_url (a request an answer); null = "
        "none")


def check(inputs: AttackInputs) -> None:
    """Raise ConfigError if the judge cannot be asked; nothing is sent."""
    model = inputs.settings.keys_of(SampleKeys).judge
    if model:
        judge.check(inputs.settings, model)


def find_problems(settings: AuditKeys) -> list[str]:
    """Return what is wrong with the judge's keys, one line each."""
    model = settings.keys_of(SampleKeys).judge
    return judge.find_problems(settings, model) if model else []


@attack(
    "sample", keys=SampleKeys, axis="k answers", check=check, find_problems=find_problems,
    headline=lambda settings: name_k(settings.keys_of(SampleKeys).draws),
    action=lambda settings: f"drawing {settings.keys_of(SampleKeys).draws} answers",
)  # fmt: skip
def run(subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return how likely k answers state the facts at least once, for k = 1, 2, 4, ..."""
    samples, keys = inputs.forget_questions(), inputs.settings.keys_of(SampleKeys)
    draws = keys.draws
    asked_samples = [sample for sample in samples if list_facts(sample)]
    answers = draw_answers(subject, inputs, asked_samples)
    verdicts = {}
    if keys.judge:
        verdicts = distributed.run_on_first_rank(
            lambda: judge.judge_answers(inputs, str(keys.judge), asked_samples, answers)
        )
    ks = list_ks(draws)
    measures: dict[str, list[float | None]] = {name_k(k): [] for k in ks}
    for sample, texts in zip(asked_samples, answers, strict=True):
        counts = []
        for fact in list_facts(sample):
            hits = 0
            for text in texts:
                hits += states(text, fact) or fact in verdicts.get((sample.id, text), ())
            counts.append(hits)
        for k in ks:
            estimates = [estimate_any(draws, count, k) for count in counts]
            measures[name_k(k)].append(sum(estimates) / len(estimates))
    curve = [(float(k), float(np.mean(measures[name_k(k)]))) for k in ks]  # type: ignore[arg-type]
    return AttackResult([sample.id for sample in asked_samples], measures, {"facts stated": curve})


def draw_answers(
    subject: Subject, inputs: AttackInputs, samples: Sequence[Sample]
) -> list[list[str]]:
    """Return `sample.draws` answers to each question.

    A draw depends on (seed, sample id, its number) alone.
    """
    settings, draws = inputs.settings, inputs.settings.keys_of(SampleKeys).draws
    prompts, seeds = [], []
    for sample, number in itertools.product(samples, range(draws)):
        prompts.append(begin_answer(subject.encoder, sample.prompt))
        seeds.append((settings.seed, zlib.crc32(sample.id.encode()), number))
    limits = [max_new_tokens(inputs)] * len(prompts)
    decoding = Decoding(settings.eval.tokens_per_batch, Sampling(seeds))
    answers = generate(subject.model, subject.encoder, prompts, limits, decoding)
    return [answers[first : first + draws] for first in range(0, len(answers), draws)]


def estimate_any(draws: int, hits: int, k: int) -> float:
    """Return an unbiased estimate of the probability that any of k answers is a hit.

    Args:
        draws: answers that were drawn, at least k.
        hits: how many of them are hits.
        k: answers of which any counts.
    """
    return 1 - math.comb(draws - hits, k) / math.comb(draws, k)


def list_ks(draws: int) -> list[int]:
    """Return 1, 2, 4, ... up to the number of draws, which is the last."""
    powers = [2**power for power in range(draws.bit_length()) if 2**power < draws]
    return [*powers, draws]


def name_k(k: int) -> str:
    """Return the name of the measure of k answers."""
    return f"any of {k}"
