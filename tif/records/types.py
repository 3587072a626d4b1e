"""What an evaluation leaves: a record for each question, sets of records, the evaluation of a model."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

PARAPHRASED = "_paraphrased"  # ending of the sets whose questions are asked in other words


@dataclasses.dataclass(frozen=True)
class TokenStats:
    """Each answer token of a text, in order, with the end token where the protocol scores it. All in nats.

    Attributes:
        logprob: log-probability of the token.
        top: whether it is the most likely one.
        mean: mean of log p over the vocabulary, under p (minus the entropy); Min-K++'s mu.
        std: its standard deviation under p; Min-K++'s sigma.
        kl: KL(original || policy) of the token's distribution; None where no original was at hand.
    """

    logprob: tuple[float, ...]
    top: tuple[bool, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kl: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One evaluated question.

    Attributes:
        id: the sample's id.
        prompt: the question; in other repositories' logs it still has its template around it.
        answer: the original answer.
        loss: mean negative log-likelihood of an answer token, in nats.
        tokens: how many answer tokens that is the mean of; None where a log does not say.
        paraphrased_loss: the same for the paraphrased answer; None where there is none, and `loss` stands in.
        perturbed_losses: the same for each wrong answer; empty where there are none.
        generated: greedy continuation of the prompt; None if nothing was generated.
        stats: the original answer token by token; None where a log does not have it.

    Raises:
        ValueError: If a loss is not finite or `tokens` is not positive.
    """

    id: str
    prompt: str
    answer: str
    loss: float
    tokens: int | None
    paraphrased_loss: float | None = None
    perturbed_losses: tuple[float, ...] = ()
    generated: str | None = None
    stats: TokenStats | None = None

    def __post_init__(self) -> None:
        losses = {"loss": self.loss, "paraphrased_loss": self.paraphrased_loss or 0.0}
        losses |= {f"perturbed_losses/{i}": value for i, value in enumerate(self.perturbed_losses)}
        for name, value in losses.items():
            if not math.isfinite(value):
                raise ValueError(f"record {self.id}: {name} is {value}, want a finite number")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"record {self.id}: tokens is {self.tokens}, want at least 1")


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """The records of one evaluation set, in the data's order.

    Attributes:
        name: forget, retain, real_authors or world_facts.
        records: one a question, ids unique.
        data: fingerprint of the samples they were made from, where known.
    """

    name: str
    records: tuple[Record, ...]
    data: str | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            if record.id in seen:
                raise ValueError(f"{self.name}: two records have the id {record.id!r}")
            seen.add(record.id)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One model, evaluated once.

    Attributes:
        model: its name or path.
        sets: name -> records.
        family: which architecture and tokenizer it has, e.g. "llama2-7b"; None = unknown. Losses per token compare only
            within a family.
        protocol: the rules of the evaluation; `name` is "legacy-tofu", "open-unlearning", ...
        epoch: 0 = before training; None = unknown.
    """

    model: str
    sets: Mapping[str, RecordSet]
    family: str | None = None
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epoch: int | None = None

    def __post_init__(self) -> None:
        for key, found in self.sets.items():
            assert key == found.name, f"set {found.name!r} is filed under {key!r}"
