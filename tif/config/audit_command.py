"""The keys of `tif audit`: which attacks, on which models, with which budget."""

import dataclasses

from tif.config.data import Data
from tif.config.evaluation import ATTACK_HELP, ATTACKS, EvalRules, find_attack_problems
from tif.config.identifier import Generative, Identifier
from tif.config.keys import key
from tif.config.model import Model
from tif.config.run import Logger

BITS = ("int8", "nf4")


@dataclasses.dataclass
class Relearn:
    """Finetuning that may bring the rest of the forget set back."""

    shares: list[float] = key([0.05, 0.1, 0.5], "shares of the forget set that are learned again, "
        "drawn by seed, the smaller ones inside the larger; the answers beyond the largest are "
        "what is measured")
    others: list[str] = key(["retain", "unrelated"], "what else is learned, as many steps: retain "
        "(retain samples), unrelated (the benchmark's world facts and real authors)")
    steps: int = key(20, "optimizer steps; measured after 0, a quarter, half and all of them",
        at_least=4)
    batch_size: int = key(8, "samples of a step, or all of fewer", at_least=1)
    lr: float = key(1e-5, "AdamW's learning rate, constant; of a run: its optimizer.lr", above=0)


@dataclasses.dataclass
class Quantise:
    """Weights in few bits."""

    bits: list[str] = key(list(BITS), f"of {', '.join(BITS)} (bitsandbytes)")


@dataclasses.dataclass
class Sample:
    """Many answers at temperature 1."""

    draws: int = key(128, "answers drawn to each question; k = 1, 2, 4, ... up to it", at_least=1)
    judge: str | None = key(None, "an LLM that reads the answers in which a fact's words do not "
        "stand: name of a model at identifier.generative.base_url (a request an answer); null = "
        "none")


@dataclasses.dataclass
class Prefix:
    """A beginning of the answer, or words before the question, that help the model along."""

    shots: int = key(3, "other forget samples, with answers, before the question", at_least=1)


@dataclasses.dataclass
class Depth:
    """Layers of the model in the place of the target model's."""

    threshold: float = key(0.05, "a layer carries the facts where the retain model's, in its "
        "place, costs more than this (nats a token)", above=0)


@dataclasses.dataclass
class Audit:
    """Whether what was unlearned can be had back."""

    attacks: list[str] = key([name for name in ATTACKS if name != "membership"], f"{ATTACK_HELP}; "
        "membership needs holdout samples")
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
    identifier: Identifier = dataclasses.field(default_factory=Identifier)
    eval: EvalRules = dataclasses.field(default_factory=EvalRules)
    relearn: Relearn = dataclasses.field(default_factory=Relearn)
    quantise: Quantise = dataclasses.field(default_factory=Quantise)
    sample: Sample = dataclasses.field(default_factory=Sample)
    prefix: Prefix = dataclasses.field(default_factory=Prefix)
    depth: Depth = dataclasses.field(default_factory=Depth)
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
        if self.sample.judge and "sample" in self.attacks:
            for problem in self.judge_endpoint().find_problems():
                problems.append(f"identifier.generative.{problem}")
            if self.identifier.generative.dry_run:
                problems.append("identifier.generative.dry_run: sends nothing, so nothing can be "
                    "judged; want false, or no sample.judge")
        return problems + self._relearn_problems() + self._bits_problems()

    def judge_endpoint(self) -> Generative:
        """Return the endpoint of `sample.judge`, which is asked once about each answer."""
        endpoint = self.identifier.generative
        return dataclasses.replace(endpoint, model=self.sample.judge, votes=1)

    def _relearn_problems(self) -> list[str]:
        problems = []
        if not all(0 < share < 1 for share in self.relearn.shares):
            problems.append("relearn.shares: want shares between 0 and 1, got "
                f"{self.relearn.shares}")
        unknown = [name for name in self.relearn.others if name not in ("retain", "unrelated")]
        if unknown:
            problems.append(f"relearn.others: want retain, unrelated, got {', '.join(unknown)}")
        if not self.relearn.shares and not self.relearn.others:
            problems.append("relearn.shares: want something to learn, got nothing")
        return problems

    def _bits_problems(self) -> list[str]:
        unknown = [name for name in self.quantise.bits if name not in BITS]
        if not unknown:
            return []
        return [f"quantise.bits: want some of {', '.join(BITS)}, got {', '.join(unknown)}"]
