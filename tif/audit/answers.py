"""Ask questions of a model under attack, and measure what its answers give away."""

from collections.abc import Sequence
from typing import NamedTuple

from tif.audit.attack import AttackInputs, AttackResult, Subject
from tif.audit.facts import list_facts, share_stated
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation.generate import Decoding, generate
from tif.metrics import tofu
from tif.records.protocols import PROTOCOLS, arithmetic_of
from tif.records.types import Evaluation

FACTS = "facts stated"
MEASURES = {
    "extraction_strength": "extraction strength",
    "probability": "probability",
    "rougeL": "ROUGE-L",
}


class Attempt(NamedTuple):
    """A question in other words: its tokens, and the facts that its answer may state."""

    wording: str  # name of this kind of words
    sample: int  # place of the question among the samples
    prompt: list[int]  # token ids
    facts: tuple[str, ...]  # those that the prompt does not give


def measure_attempts(
    subject: Subject, inputs: AttackInputs, samples: Sequence[Sample],
    attempts: Sequence[Attempt], best: str,
) -> AttackResult:  # fmt: skip
    """Return by wording which share of the facts the greedy answers to each question state.

    Of several attempts with a wording the mean counts. The measure `best` is the largest share of
    any attempt.
    """
    answers = answer_greedily(subject, inputs, [attempt.prompt for attempt in attempts])
    names = dict.fromkeys([*(attempt.wording for attempt in attempts), best])
    shares: dict[str, list[list[float]]] = {name: [[] for _ in samples] for name in names}
    for attempt, answer in zip(attempts, answers, strict=True):
        share = share_stated(answer, attempt.facts)
        if share is not None:
            shares[attempt.wording][attempt.sample].append(share)
            shares[best][attempt.sample].append(share)
    measures: dict[str, list[float | None]] = {}
    for name, columns in shares.items():
        measures[name] = [sum(values) / len(values) if values else None for values in columns]
    measures[best] = [max(values, default=None) for values in shares[best]]
    return AttackResult([sample.id for sample in samples], measures)


def answer_greedily(
    subject: Subject, inputs: AttackInputs, prompts: Sequence[list[int]]
) -> list[str]:
    """Return what the model says after each prompt, of token ids, as an evaluation generates it."""
    limits = [max_new_tokens(inputs)] * len(prompts)
    decoding = Decoding(inputs.settings.eval.tokens_per_batch)
    return generate(subject.model, subject.encoder, prompts, limits, decoding)


def max_new_tokens(inputs: AttackInputs) -> int:
    """Return the most tokens generated for an answer, by the rules of section `eval`."""
    rules = inputs.settings.eval
    return rules.max_new_tokens or PROTOCOLS[rules.protocol].max_new_tokens


def begin_answer(encoder: Encoder, prompt: str, given: str = "") -> list[int]:
    """Return the token ids of a question, with the beginning of its answer where it is given."""
    text = encoder.render_prompt(prompt)
    return encoder.encode_text(text + encoder.format.blank + given if given else text)


def measure_answers(
    evaluation: Evaluation, samples: Sequence[Sample]
) -> dict[str, list[float | None]]:
    """Return for each question which facts its greedy answer states, and TOFU's metrics of it.

    A method that keeps the general words of the forget answers, as TPO does, keeps part of
    extraction strength, probability and ROUGE-L: these read the whole answer. Facts are what it is
    asked to forget.

    Args:
        evaluation: with records of the set `forget`.
        samples: those of the records, in their order.
    """
    records = evaluation.sets["forget"]
    values = tofu.question_values(records, arithmetic_of(evaluation.protocol))
    measures: dict[str, list[float | None]] = {FACTS: []}
    for record, sample in zip(records.records, samples, strict=True):
        measures[FACTS].append(share_stated(record.generated or "", list_facts(sample)))
    for metric, measure in MEASURES.items():
        column = values[metric]
        measures[measure] = [None] * len(samples) if column is None else column.tolist()
    return measures
