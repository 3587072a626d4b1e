"""What an attack is, what it sees and what it leaves. Called by every attack and by the audit.

An attack tries to get unlearned facts back from one model. The same attack, with the same budget
and the same draws, runs on the unlearned model, on the retain model (what that yields is no leak)
and on the target model (the upper bound).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.audit_command import Audit
from tif.config.data import PromptKeys
from tif.config.schema import Model
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, Sample
from tif.evaluation.generate import Decoding, generate
from tif.evaluation.questions import EvaluationSetup, list_longest_texts
from tif.identifiers.generative.prompts_and_replies import Request
from tif.models.load import load_policy, load_tokenizer, move_model, read_config
from tif.probes.packed_rows import choose_batching
from tif.utils import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model under audit; its weights load at the first use.

    Attributes:
        role: target, unlearned or retain.
        section: section `model`, with the model's path.
        prompts: prompt format of the questions.
        device: where it runs.
        folder: of its results.
    """

    role: str
    section: Model
    prompts: PromptKeys
    device: torch.device
    folder: Path

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of the model's own tokenizer."""
        return Encoder(load_tokenizer(self.section, ()), self.prompts)

    @functools.cached_property
    def config(self) -> Any:
        """Return the content of the model's config.json."""
        return read_config(self.section)

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Return the model as it is, in evaluation mode; no attack may change it."""
        return self.load()

    def load(self, **keys: Any) -> "PreTrainedModel":
        """Return a model of the caller's own; `keys` replace those of section `model`."""
        section = dataclasses.replace(self.section, **keys)
        model = load_policy(section, self.encoder.tokenizer, 0, device=self.device)
        return move_model(model, self.device).eval()

    def unload(self) -> None:
        """Free the memory of the model."""
        self.__dict__.pop("model", None)


@dataclasses.dataclass(frozen=True)
class AttackInputs:
    """What an attack on a model may read.

    Attributes:
        settings: the keys of `tif audit`.
        benchmark: whose forget samples have unwanted spans.
        subjects: all models of the audit, by role.
        judged: what the judge of answers was asked so far, by key.
    """

    settings: Audit
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
class Outcome:
    """What an attack on a model leaves: more of everything means that more came back.

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
class Attack:
    """A kind of attack.

    Attributes:
        run: attacks one model.
        headline: the measure of the verdict, given the settings.
        action: the attack in words, as the subject of the verdict's sentence.
        axis: what the x of its curves counts; "" without curves.
        sections: of the audit's keys, whose values decide about the result.
        reads: other models that it looks into, by role.
        check: raises ConfigError where it cannot run; before weights load.
        compare: numbers that the outcomes of all roles give together, by name and role.
    """

    run: Callable[[Subject, AttackInputs], Outcome]
    headline: Callable[[Audit], str]
    action: Callable[[Audit], str]
    axis: str = ""
    sections: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    check: Callable[[AttackInputs], None] = lambda inputs: None
    compare: Callable[[Mapping[str, Outcome]], dict[str, dict[str, float]]] | None = None


def answer_greedily(
    subject: Subject, inputs: AttackInputs, prompts: Sequence[list[int]]
) -> list[str]:
    """Return what the model says after each prompt, of token ids, as an evaluation generates it."""
    rules = inputs.settings.eval
    limits = [max_new_tokens(inputs)] * len(prompts)
    decoding = Decoding(rules.tokens_per_batch)
    return generate(subject.model, subject.encoder, prompts, limits, decoding)


def max_new_tokens(inputs: AttackInputs) -> int:
    """Return the most tokens generated for an answer, by the rules of section `eval`."""
    from tif.records.protocols import PROTOCOLS

    rules = inputs.settings.eval
    return rules.max_new_tokens or PROTOCOLS[rules.protocol].max_new_tokens


def begin_answer(encoder: Encoder, prompt: str, given: str = "") -> list[int]:
    """Return the token ids of a question, with the beginning of its answer where it is given."""
    text = encoder.render_prompt(prompt)
    return encoder.encode_text(text + encoder.format.blank + given if given else text)
