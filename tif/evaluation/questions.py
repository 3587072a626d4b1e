"""What a model is asked in an evaluation: which samples, by which rules, and as which tokens.

The prompts of TOFU-like questions are made in tofu_prompts.py, those of MUSE in muse_prompts.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tif.config.evaluation import EvalRules
from tif.data.encoding import Encoded, Encoder
from tif.data.samples import Benchmark, Sample, Task
from tif.metrics import muse
from tif.records.comparability import find_mismatch
from tif.records.protocols import PROTOCOLS
from tif.records.types import PARAPHRASED, Evaluation, Record, RecordSet

MUSE_PROTOCOL = "muse"  # name of the rules of all sets with tasks


@dataclasses.dataclass(frozen=True)
class Question:
    """One sample, tokenised.

    Attributes:
        sample: with its answer as it is scored and compared.
        prompt_ids: token ids that a generation continues.
        texts: prompt and answer together, for each answer that is scored; the original first.
        max_new_tokens: tokens generated at most; 0 = nothing is generated.
        task: what ends a generation besides the end token; None = nothing.
    """

    sample: Sample
    prompt_ids: list[int]
    texts: list[Encoded]
    max_new_tokens: int
    task: Task | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationSetup:
    """How a model is evaluated.

    Attributes:
        encoder: tokenises questions and answers.
        rules: section `eval`.
        batching: "packed" or "padded", see probes/packed_rows.py.
        tasks: of sets that are asked by rules of their own (MUSE's), by set name.
    """

    encoder: Encoder
    rules: EvalRules
    batching: str
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)


def select_samples(
    sets: Mapping[str, Sequence[Sample]], rules: EvalRules, tasks: Mapping[str, Task] | None = None
) -> dict[str, tuple[Sample, ...]]:
    """Return the first samples of each set, as many as `eval.max_samples` or the protocol says.

    A set whose samples have a paraphrased question is there a second time, as <name>_paraphrased:
    that question with the same answers. Without `eval.paraphrased_questions` this is the forget set
    alone, with the original answer alone, and nothing is generated (see `only_scores`).
    """
    selected: dict[str, tuple[Sample, ...]] = {}
    for name, samples in sets.items():
        if tasks and name in tasks:
            limits = rules.max_samples
            limit = limits.retain if name.endswith("retain") else limits.forget
            selected[name] = tuple(samples[:limit])
            continue
        limit = getattr(rules.max_samples, name, None) or PROTOCOLS[rules.protocol].questions
        selected[name] = tuple(samples[:limit])
        paraphrased = []
        for sample in selected[name]:
            if sample.paraphrased_prompt:
                id, prompt = f"{sample.id}/paraphrased", sample.paraphrased_prompt
                paraphrased.append(dataclasses.replace(sample, id=id, prompt=prompt))
        if only_scores(name + PARAPHRASED, rules):
            bare: Any = {"paraphrased_answer": None, "perturbed_answers": ()}
            paraphrased = [dataclasses.replace(sample, **bare) for sample in paraphrased]
        if paraphrased and (rules.paraphrased_questions or name == "forget"):
            selected[name + PARAPHRASED] = tuple(paraphrased)
    return selected


def only_scores(set_name: str, rules: EvalRules) -> bool:
    """Return whether a set is there for the scores of its answers, and nothing is generated."""
    return set_name.endswith(PARAPHRASED) and not rules.paraphrased_questions


def list_longest_texts(encoder: Encoder, sets: Mapping[str, Sequence[Sample]]) -> list[list[int]]:
    """Return the tokens of the sample with the most characters of each set."""
    texts = []
    for samples in sets.values():
        pairs = [f"{sample.prompt} {sample.answer}" for sample in samples]
        texts.append(encoder.encode_text(max(pairs, key=len, default="")))
    return texts


def compared_sets(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the sets of a benchmark whose records are compared with the retain model's."""
    return muse.COMPARED if benchmark.tasks else ("forget",)


def find_expected_mismatch(
    retain: Evaluation,
    benchmark: Benchmark,
    rules: EvalRules,
    family: str | None,
    protocol: Mapping[str, Any] | None = None,
) -> str | None:
    """Return why the retain model's records will not compare with an evaluation; None if they may.

    The benchmark has the compared sets; `family` is the model's, as records name it, `protocol` all
    rules as they will be recorded; None = a model that is not there yet.
    """
    selected = select_samples(benchmark.sets, rules, benchmark.tasks)
    sets = {}
    for name in compared_sets(benchmark):
        records = [
            Record(sample.id, sample.prompt, sample.answer, loss=0.0, tokens=None)
            for sample in selected[name]
        ]
        sets[name] = RecordSet(name, tuple(records))
    name = MUSE_PROTOCOL if benchmark.tasks else rules.protocol
    expected = Evaluation("", sets, family, protocol or {"name": name})
    return find_mismatch(expected, retain, compared_sets(benchmark))


def label_answer(id: str, ids: list[int], first: int) -> Encoded:
    """Return a text whose tokens from `first` on are the answer, all of them general words."""
    return Encoded(id, ids, [False] * len(ids), [t >= first for t in range(len(ids))])
