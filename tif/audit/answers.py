"""What the answers of an evaluation give away, by question. Called by relearn and quantise."""

from collections.abc import Sequence

from tif.audit.facts import list_facts, share_stated
from tif.data.samples import Sample
from tif.metrics import tofu
from tif.records.protocols import arithmetic_of
from tif.records.types import Evaluation

FACTS = "facts stated"
METRICS = {
    "extraction_strength": "extraction strength",
    "probability": "probability",
    "rougeL": "ROUGE-L",
}


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
    for metric, title in METRICS.items():
        column = values[metric]
        measures[title] = [None] * len(samples) if column is None else column.tolist()
    return measures
