"""The keys of `tif audit`: which attacks, on which models. An attack's own keys are in its file."""

import dataclasses
from typing import Any, TypeVar, cast

from tif.config.data import Data
from tif.config.evaluation import EvalRules, find_attack_problems, make_rules
from tif.config.identifier import Identifier, make_identifier
from tif.config.keys import find_section, key
from tif.config.model import Model
from tif.config.registry import entries, extend_section
from tif.config.run import Logger

FOLDER = "audit"  # in a run folder, beside the model
K = TypeVar("K")


@dataclasses.dataclass
class AuditKeys:
    """Whether what was unlearned can be had back."""

    attacks: list[str] = key([], "names of attacks")
    target: str | None = key(None, "the model before it unlearned (folder or hub name): the upper "
        "bound; of a run: known")
    retain_model: str | None = key(None, "the model that never saw the forget set: what it yields "
        "is no leak; of a run: known")
    out: str = key("audits", "where results go; a run's own go to <run>/audit, and those of its "
        "target and retain model too unless this is given")
    seed: int = key(0, "owner of every draw: samples, answers", at_least=0,
        at_most=2**32)
    device: str = key("auto", "cpu, cuda, ...; auto = a GPU where there is one")
    batching: str = key("auto", "as data.batching, for what is scored", choices=("auto", "packed",
        "padded"))
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    identifier: Identifier = dataclasses.field(default_factory=make_identifier)
    eval: EvalRules = dataclasses.field(default_factory=lambda: make_rules(EvalRules))
    logger: Logger = dataclasses.field(default_factory=Logger)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = find_attack_problems("attacks", self.attacks)
        for name in ("model.path", "target", "retain_model"):
            value = self.model.path if name == "model.path" else getattr(self, name)
            if not value:
                problems.append(f"{name}: want a Hugging Face folder or hub name, or give a run "
                    "folder instead of models (see --help), got null")
        if self.model.lora.rank or self.model.quantize != "none":
            problems.append("model: audits whole models; want model.lora.rank=0 and "
                "model.quantize=none (merge the adapters: model.lora.merge=true in the run)")
        problems += self.data.find_problems()
        problems += self.identifier.find_problems(self.model)
        problems += self.logger.find_problems()
        for name, attack in entries("attack").items():
            if name in self.attacks:
                problems += cast(Any, attack).find_problems(self)
        return problems

    def keys_of(self, keys: type[K]) -> K:
        """Return the section whose dataclass is `keys`, an attack's."""
        return find_section(self, keys)


def _attacks_field() -> tuple[str, Any, Any]:
    attacks = entries("attack")
    names = [name for name, attack in attacks.items() if cast(Any, attack).is_default]
    text = f"of {', '.join(attacks)}; membership needs holdout samples"
    return "attacks", list[str], key(names, text)


def audit_schema() -> type[AuditKeys]:
    """Return `AuditKeys` with a section for each attack that has keys, named as the attack."""
    return extend_section(AuditKeys, "attack", _attacks_field)


def make_settings(**values: Any) -> AuditKeys:
    """Return the keys of an audit with these values, and the defaults of all others."""
    return audit_schema()(**values)
