"""Section `loss`: the keys of the composition, declared here, and the keys of each term.

A term declares its keys itself. `loss_class` puts all into one dataclass, so that they are written
flat: `loss.forget`, `loss.beta`, ...
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, TypeVar

from tif.config import registry
from tif.config.errors import ConfigError
from tif.config.keys import key
from tif.config.registry import Entry

K = TypeVar("K")


@dataclasses.dataclass
class Dual:
    """The retain weight as a multiplier that grows while the retain term is above a limit (PDU).

    After each step of the epochs after the warm-up it moves to max(0, weight + step * (retain -
    limit)), retain being the term of the step's batch before the step. The authors' code
    (open-unlearning d3d7cf9 src/trainer/unlearn/pdu.py) makes such a move in each process for
    itself after each micro-batch, with the term of that micro-batch. With four accumulated
    micro-batches, as their trainer has them, their step is a quarter of the one here.
    """

    limit: float | None = key(None, "largest retain term that is accepted (nats for ce); null = a "
        "fixed retain_weight")
    step: float = key(1.0, "retain weight added per training step and unit above the limit",
        above=0)
    warmup_epochs: int = key(5, "epochs at retain_weight before it moves", at_least=0)


@dataclasses.dataclass
class Alternates:
    """What idk, dpo and kto want instead of the answer; each epoch draws one for each question."""

    kind: str = key("refusals", "refusals: a hundred of our own; generated: other answers, drawn "
        "from the model before it unlearns (AltPO)", choices=("refusals", "generated"))
    count: int = key(5, "generated: other answers to each question", at_least=1)
    prompt: str = key("{prompt}\nAnswer: {answer}\nNow write another version of this answer, with "
        "other plausible facts.", "generated: the request for them, which takes the question's "
        "place in data.template")
    temperature: float = key(1.0, "generated: temperature of the draws", above=0)
    max_new_tokens: int = key(200, "generated: tokens of each", at_least=1)


@dataclasses.dataclass
class Wording:
    """Other wordings of the forget samples, so that a fact goes and not only its sentence."""

    share: float = key(0.0, "share of the draws of forget samples that are reworded", at_least=0,
        at_most=1)
    drop: float = key(0.7, "share of general words a reworded answer loses", at_least=0, at_most=1)
    question: float = key(0.0, "share of the words of its question that it loses", at_least=0,
        at_most=1)
    borrow: float = key(0.0, "share of the reworded draws that lose none: before a fact stands "
        "the beginning of a similar retain answer", at_least=0, at_most=1)
    similar: int = key(40, "the most similar retain answers it is drawn from", at_least=1)


@dataclasses.dataclass
class Loss:
    """forget_weight * forget term + pl_weight * preservation term + retain_weight * retain term."""

    forget: str = key("lpl", "forget term, see configs/loss/; ce = finetuning; module:function = "
        "your own")
    on: str = key("uw", "answer tokens that the forget term sees", choices=("uw", "all"))
    skip: int = key(0, "answer tokens at the start that the forget term does not see", at_least=0)
    preserve: str = key("pl", "preservation term on general words (GW)", choices=("pl", "none"))
    retain: str = key("none", "term on a retain sample drawn for each forget sample: ce "
        "(cross-entropy), kl (from the original model), hidden (distance from the original's "
        "hidden states at rmu.layer)")
    pl_reduction: str = key("sum", "over a sample's GW tokens (the released code: sum)",
        choices=("sum", "mean"))
    forget_weight: float = key(1.0, "weight of the forget term", at_least=0)
    pl_weight: float = key(0.01, "the paper's lambda, 0 to 0.01", at_least=0)
    retain_weight: float = key(1.0, "weight of the retain term", at_least=0)
    dual: Dual = dataclasses.field(default_factory=Dual)
    alternates: Alternates = dataclasses.field(default_factory=Alternates)
    wording: Wording = dataclasses.field(default_factory=Wording)
    task_vector: float | None = key(None, "forget=ce on the forget set: evaluate and export start "
        "- task_vector * (trained - start); null = the trained weights", above=0)
    whp: float | None = key(None, "alpha of z_start - alpha relu(z_reinforced - z_start), Who's "
        "Harry Potter's logits. forget=whp or rkld: learn them; forget=ce on the forget set: the "
        "policy becomes the reinforced model, and they are evaluated; null = no", above=0)
    whp_epochs: int = key(5, "forget=whp or rkld: epochs in which the reinforced model learns the "
        "forget set", at_least=1)
    micro_batch: int = key(4, "samples that the released codes score at once: lpl_reduction=batch "
        "and kto take their mean over so many, in the order of the batch", at_least=1)
    chunk_tokens: int = key(1024, "answer tokens whose logits (of the whole vocabulary) are in "
        "memory at once; more are made in chunks, twice", at_least=1)

    def is_whp_at_inference(self, train: str) -> bool:
        """Return whether the policy is `whp`'s reinforced model, evaluated with lowered logits."""
        return self.forget == "ce" and self.whp is not None and train == "forget"

    def has_reinforced_model(self) -> bool:
        """Return whether the term learns logits that a model which learned further lowers."""
        return self.forget in ("whp", "rkld")

    def has_rewordings(self, train: str) -> bool:
        """Return whether some forget samples are read in other wordings."""
        return self.wording.share > 0 and self.forget != "ce" and train == "forget"

    def find_problems(self, train: str) -> list[str]:
        """Return the problems between keys, one line each, names without the section."""
        problems = []
        is_unlearning, is_finetuning = train == "forget", self.forget == "ce"
        if not is_finetuning and not is_unlearning:
            problems.append(f"forget: {self.forget} unlearns, but data.train={train}; want ce")
        if is_finetuning and (self.on, self.preserve, self.retain) != ("all", "none", "none"):
            problems.append("forget: ce is finetuning on whole answers; want loss.on=all "
                "loss.preserve=none loss.retain=none")
        if self.task_vector is not None and not is_finetuning:
            problems.append("task_vector: negates finetuning; want loss.forget=ce, or null")
        if self.has_reinforced_model() and self.whp is None:
            problems.append(f"whp: {self.forget} lowers logits by it; want a number, got null")
        if self.whp is not None and not (is_finetuning or self.has_reinforced_model()):
            problems.append(f"whp: serves forget=whp, rkld or ce, not {self.forget}; want null")
        if self.whp is not None and self.task_vector is not None:
            problems.append("whp: excludes loss.task_vector; want null for one of them")
        if self.retain != "none" and not is_unlearning:
            problems.append(f"retain: is for data.train=forget, got {train}; want none")
        if self.has_rewordings(train) and self.on != "uw":
            problems.append("wording.share: rewords what stands around unwanted words, and on="
                f"{self.on} forgets whole answers; want on=uw, or 0")
        if self.dual.limit is not None and self.retain == "none" and not is_finetuning:
            problems.append("dual.limit: moves the retain term's weight; want another loss.retain")
        return problems


def loss_class(added: Iterable[Entry] = ()) -> type[Loss]:
    """Return section `loss` with the keys of tif's own terms and of the terms in `added`.

    Raises:
        ConfigError: If two terms declare the same key in different ways.
    """
    terms = registry.entries("forget").values()
    built_in = tuple(term for term in terms if term.is_built_in())
    return _build_class(built_in, (*registry.entries("retain").values(), *added))


@functools.cache
def _build_class(built_in: tuple[Entry, ...], others: tuple[Entry, ...]) -> type[Loss]:
    """Return a dataclass that inherits the fields of `Loss` and of all terms' keys."""
    declared = {field.name: field for field in dataclasses.fields(Loss)}
    forget_names = tuple(sorted(term.name for term in built_in))
    rules: dict[str, dict[str, Any]] = {"forget": {"choices": forget_names, "or_own": True},
        "retain": {"choices": ("none", *sorted(registry.entries("retain")))}}
    fields: list[Any] = []
    for name, rule in rules.items():
        field = declared[name]
        fields.append((name, str, key(field.default, field.metadata["help"], **rule)))
    for term in (*built_in, *others):
        for field in dataclasses.fields(term.keys):
            if declared.setdefault(field.name, field) is not field:  # subclasses share the object
                where = f"loss.{field.name}: {term.module}"
                raise ConfigError(f"{where} declares another key of this name")
    keys = dict.fromkeys(term.keys for term in (*built_in, *others))
    subclasses_first = sorted(keys, key=lambda section: -len(section.__mro__))
    section = dataclasses.make_dataclass("Loss", fields, bases=(*subclasses_first, Loss))
    section.__module__, section.__doc__ = __name__, Loss.__doc__
    return section


def make_loss(**values: Any) -> Loss:
    """Return section `loss` with these values, and the defaults of all other keys."""
    return loss_class()(**values)


def keys_of(loss: Loss, keys: type[K]) -> K:
    """Return the values of section `loss` that the dataclass `keys` names."""
    names = [field.name for field in dataclasses.fields(keys)]  # type: ignore[arg-type]
    return keys(**{name: getattr(loss, name) for name in names})
