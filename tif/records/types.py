"""What an evaluation leaves: a record per question, sets of records, the evaluation of a model."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tif.records.json_values import Marks

PARAPHRASED = "_paraphrased"  # ending of the sets whose questions are asked in other words


@dataclasses.dataclass(frozen=True)
class TokenStats:
    """Numbers of each answer token (with the end token where the protocol scores it), in nats.

    Attributes:
        logprob: log-probability of the token.
        top: whether it is the most likely token.
        mean: mean of log p over the vocabulary under p (minus the entropy); Min-K++'s mu.
        std: its standard deviation under p; Min-K++'s sigma.
        kl: KL(original || policy) of the token's distribution; None without an original.
        ended: whether the last token is the end token.
    """

    logprob: tuple[float, ...]
    top: Marks
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kl: tuple[float, ...] | None = None
    ended: bool = True

    def __post_init__(self) -> None:
        if max(self.logprob, default=0.0) > 0:
            raise ValueError(f"logprob has {max(self.logprob)}, want at most 0")
        for name in ("logprob", "mean", "std", "kl"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.top):
                raise ValueError(f"{name} has {len(column)} numbers, top has {len(self.top)}")


@dataclasses.dataclass(frozen=True)
class AnswerTokens:
    """The scored tokens of one answer, as many as its record's `stats` have.

    Attributes:
        ends: where each ends in the answer, in characters; a token begins where the one before it
            ends. One that adds no whole character ends where it begins.
        uw: whether each is (part of) an unwanted word; None where nobody marked the answer.
        unwanted: [start, end) of the unwanted words in the answer; None as `uw`.
        gold: as `uw`, by the marks that the data came with; None where `uw` is these, or the data
            has none.
    """

    ends: tuple[int, ...]
    uw: Marks | None = None
    unwanted: tuple[tuple[int, int], ...] | None = None
    gold: Marks | None = None

    def __post_init__(self) -> None:
        for name, marks in (("uw", self.uw), ("gold", self.gold)):
            if marks is not None and len(marks) != len(self.ends):
                raise ValueError(f"{name} has {len(marks)} tokens, ends has {len(self.ends)}")

    @property
    def measured(self) -> tuple[bool, ...] | None:
        """Return which tokens count as unwanted where words are measured: gold where it is."""
        return self.uw if self.gold is None else self.gold


AnswersBySet = Mapping[str, Mapping[str, AnswerTokens]]  # set -> id of the record -> its tokens


@dataclasses.dataclass(frozen=True)
class Record:
    """One evaluated question.

    Attributes:
        id: the sample's id.
        prompt: the question; in the logs of other repositories with its template.
        answer: the original answer.
        loss: mean negative log-likelihood of an answer token, in nats.
        tokens: number of answer tokens in that mean; None where a log does not say.
        paraphrased_loss: of the paraphrased answer; None where there is none: then `loss` is used.
        perturbed_losses: of each wrong answer.
        generated: greedy continuation of the prompt; None if nothing was generated.
        stats: the original answer token by token; None where a log does not have it.
        logged: numbers of the answer that a log gives in the place of `stats`, by metric.
        group: records of one subject, as "author/198"; None = there is no other.
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
    logged: Mapping[str, float] = dataclasses.field(default_factory=dict)
    group: str | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "paraphrased_loss", "perturbed_losses"):
            value = getattr(self, name)
            for loss in value if isinstance(value, tuple) else (value or 0.0,):
                if not math.isfinite(loss):
                    raise ValueError(f"record {self.id}: {name} is {loss}, want a finite number")
                if loss < 0:
                    raise ValueError(f"record {self.id}: {name} is {loss}, want at least 0")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"record {self.id}: tokens is {self.tokens}, want at least 1")


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """The records of one evaluation set, in the order of the data.

    Attributes:
        name: forget, retain, real_authors, world_facts or a set of MUSE.
        records: one per question, with unique ids.
        data: fingerprint of the samples they were made from; None = unknown.
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

    @property
    def groups(self) -> list[str]:
        """Return (N,) the group of each record, "<unit>/<name>": the unit of a statistic."""
        groups = []
        for record in self.records:
            unit = "question" if record.prompt else "document"
            groups.append(record.group or f"{unit}/{record.id}")
        return groups


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model at one time.

    Attributes:
        model: its name or path.
        sets: records by the name of their set.
        family: architecture and tokenizer, such as "llama2-7b"; None = unknown. Losses per token
            compare within a family only.
        protocol: the rules of the evaluation; `name` is "legacy-tofu", "open-unlearning", ...
        epoch: 0 = before training; None = unknown.
        attack_scores: of a log that gives no texts: by membership attack, the scores of the forget
            and of the holdout texts.
        logged: numbers of the evaluation that a log gives as they are, such as its PrivLeak.
    """

    model: str
    sets: Mapping[str, RecordSet]
    family: str | None = None
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epoch: int | None = None
    attack_scores: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = dataclasses.field(
        default_factory=dict
    )
    logged: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, records in self.sets.items():
            assert name == records.name, f"set {records.name!r} is filed under {name!r}"
