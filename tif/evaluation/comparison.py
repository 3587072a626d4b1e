"""Whether the retain model's records will compare with an evaluation that is not made yet.

Called by training/checks.py and model_numbers.py before weights load.
"""

from tif.config.evaluation import EvalRules
from tif.data.samples import Benchmark
from tif.evaluation.muse_prompts import PROTOCOL
from tif.evaluation.questions import select_samples
from tif.metrics import muse
from tif.records import comparability
from tif.records.types import Evaluation, Record, RecordSet


def compared_sets(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the sets of a benchmark whose records are compared with the retain model's."""
    return muse.COMPARED if benchmark.tasks else ("forget",)


def find_expected_mismatch(
    retain: Evaluation, benchmark: Benchmark, rules: EvalRules, family: str | None
) -> str | None:
    """Return why records of the retain model will not compare with an evaluation; None if they may.

    Args:
        retain: the retain model's records.
        benchmark: what the model will be asked; it has the compared sets.
        rules: section `eval`.
        family: of the model, as records name it; None = unknown.
    """
    selected = select_samples(benchmark.sets, rules, benchmark.tasks)
    sets = {}
    for name in compared_sets(benchmark):
        records = [
            Record(sample.id, sample.prompt, sample.answer, loss=0.0, tokens=None)
            for sample in selected[name]
        ]
        sets[name] = RecordSet(name, tuple(records))
    protocol = PROTOCOL if benchmark.tasks else rules.protocol
    expected = Evaluation("", sets, family, {"name": protocol})
    return comparability.find_mismatch(expected, retain, compared_sets(benchmark))
