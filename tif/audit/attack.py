"""What an attack is, what it sees and what it leaves. Called by every attack and by the audit.

    @attack("prefix", keys=Prefix, headline=..., action=...)
    def run(subject: Subject, inputs: AttackInputs) -> AttackResult: ...

An attack tries to get unlearned facts back from one model. The same attack, with the same budget
and the same draws, runs on the unlearned model, on the retain model (what that yields is no leak)
and on the target model (the upper bound).
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from tif.audit.keys import AuditKeys
from tif.config import registry
from tif.config.keys import NoKeys
from tif.config.registry import Entry
from tif.data.samples import Benchmark, Sample
from tif.evaluation.model_on_demand import Subject
from tif.evaluation.questions import EvaluationSetup, list_longest_texts
from tif.identifiers.generative.prompts_and_replies import Request
from tif.probes.packed_rows import choose_batching
from tif.utils import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class AttackInputs:
    """What an attack on a model may read.

    Attributes:
        settings: the keys of `tif audit`.
        benchmark: whose forget samples have unwanted spans.
        subjects: all models of the audit, by role.
        judged: what the judge of answers was asked so far, by key.
    """

    settings: AuditKeys
    benchmark: Benchmark
    subjects: Mapping[str, Subject]
    judged: dict[str, Request] = dataclasses.field(default_factory=dict)

    def forget_questions(self) -> tuple[Sample, ...]:
        """Return the forget samples that are attacked, as many as section `eval` evaluates."""
        return self.benchmark.forget[: self.settings.eval.max_samples.forget]

    def setup(self, subject: Subject, model: "PreTrainedModel") -> EvaluationSetup:
        """Return how texts are scored under a model."""
        texts = list_longest_texts(subject.encoder, self.benchmark.sets)
        wanted = self.settings.batching
        batching = distributed.run_on_first_rank(
            lambda: choose_batching(wanted, model, texts, "batching")
        )
        return EvaluationSetup(subject.encoder, self.settings.eval, batching)


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What an attack on a model leaves. A higher value means that more of the facts was recovered.

    Attributes:
        ids: (N,) the questions.
        measures: by name, (N,) values of the questions; None where a question has none.
        curves: by name, points (x, y).
        numbers: by name, numbers of the model that no single question has.
        vectors: by name, values that `Attack.compare` reads.
    """

    ids: Sequence[str]
    measures: Mapping[str, Sequence[float | None]]
    curves: Mapping[str, Sequence[tuple[float, float]]] = dataclasses.field(default_factory=dict)
    numbers: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    vectors: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Attack(Entry):
    """A kind of attack; calling it attacks one model.

    Attributes:
        run: attacks one model.
        headline: the measure of the verdict, given the settings.
        action: the attack in words, as the subject of the verdict's sentence.
        axis: what the x of its curves counts; "" without curves.
        reads: other models that it looks into, by role.
        find_problems: what is wrong with its keys, one line each.
        is_default: whether an audit makes it unless other attacks are named.
        check: raises ConfigError where it cannot run; before weights load.
        compare: numbers that the outcomes of all roles give together, by name and role.
    """

    run: Callable[[Subject, AttackInputs], AttackResult]
    headline: Callable[[AuditKeys], str]
    action: Callable[[AuditKeys], str]
    axis: str = ""
    reads: tuple[str, ...] = ()
    find_problems: Callable[[AuditKeys], list[str]] = lambda settings: []
    is_default: bool = True
    check: Callable[[AttackInputs], None] = lambda inputs: None
    compare: Callable[[Mapping[str, AttackResult]], dict[str, dict[str, float]]] | None = None

    def __call__(self, subject: Subject, inputs: AttackInputs) -> AttackResult:
        """Attack a model."""
        return self.run(subject, inputs)


def attack(
    name: str, keys: type = NoKeys, **properties: Any
) -> Callable[[Callable[[Subject, AttackInputs], AttackResult]], Attack]:
    """Register a function of (subject, inputs) as an attack; its source is the module's docstring.

    Args:
        name: what `attacks` of the audit takes, and the section of its keys.
        keys: dataclass of these keys; `inputs.settings.keys_of(keys)` has their values.
        properties: the `Attack`'s other fields.
    """

    def decorate(run: Callable[[Subject, AttackInputs], AttackResult]) -> Attack:
        documented = sys.modules[run.__module__].__doc__ or ""
        registered = Attack(name, keys, documented, run.__module__, run, **properties)
        registry.register("attack", registered)
        return registered

    return decorate


def get_attack(name: str) -> Attack:
    """Return the attack of this name."""
    return cast(Attack, registry.entries("attack")[name])
