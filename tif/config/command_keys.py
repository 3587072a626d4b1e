"""The keys of `tif evaluate`, `tif chat` and `tif identify`."""

import dataclasses

from tif.config.data import AUTO, TEMPLATE_HELP, Chat, Data, PromptKeys
from tif.config.evaluation import EvalRules, describe_evaluated, make_rules
from tif.config.keys import key
from tif.config.model import Model
from tif.config.run import Logger
from tif.config.schema import Config


@dataclasses.dataclass
class Membership:
    """Membership attacks that cost more than what is scored anyway."""

    reference: str | None = key(None, "model that never saw the texts, for the reference attack "
        "(folder or hub name)")
    gradient_norm: bool = key(False, "the gradient norm attack too: a backward pass for each text")


@dataclasses.dataclass
class Fluency:
    """Fluency by a classifier; repetition and n-gram entropy are always there."""

    classifier: str | None = key(None, "sequence classifier (folder or hub name) whose class "
        "`clean`, or its first, says that a text is language")


@dataclasses.dataclass
class Evaluate:
    """What is evaluated, against what."""

    records: str | None = key(None, "a recorded evaluation: a run's eval/<epoch> folder or an "
        "evaluation log")
    retain_records: str | None = key(None, "the retain model's evaluation, likewise; null = no "
        "forget quality")
    retain_model: str | None = key(None, "the retain model (folder or hub name), evaluated by the "
        "same rules")
    original: str | None = key(None, "what the model was before it unlearned (folder or hub name): "
        "KL(original || model) over answer tokens too")
    allow_mismatch: bool = key(False, "compare with the retain model also where the two do not "
        "compare; the output says so")
    draws: int = key(2000, "bootstrap draws behind forget quality's interval", at_least=100,
        at_most=100_000)
    seed: int = key(0, "owner of these draws; nothing else is drawn", at_least=0,
        at_most=2**32)
    out: str = key("evaluations", "where records are written; what is there already is not made "
        "again")
    template: str = key(AUTO, "of TOFU and of your own questions: "
        + TEMPLATE_HELP)
    chat: Chat = dataclasses.field(default_factory=Chat)
    device: str = key("auto", "cpu, cuda, ...; auto = a GPU where there is one")
    batching: str = key("auto", "packed: texts end to end in one row, no padding; padded; auto = "
        "packed where a probe on the device finds the scores of texts alone; packed is refused "
        "where it does not", choices=("auto", "packed", "padded"))
    model: Model = dataclasses.field(default_factory=Model)
    eval: EvalRules = dataclasses.field(default_factory=lambda: make_rules(EvalRules,
        benchmarks=["tofu"]))
    membership: Membership = dataclasses.field(default_factory=Membership)
    fluency: Fluency = dataclasses.field(default_factory=Fluency)
    logger: Logger = dataclasses.field(default_factory=Logger)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        logger_problems = self.logger.find_problems()
        if self.records:
            problem = "model.path: records= needs no model; want one of the two"
            return [problem, *logger_problems] if self.model.path else logger_problems
        if not self.model.path:
            return ["model.path: want a Hugging Face folder or hub name, or records=LOG (see "
                "--help), got null"]
        problems = self.eval.find_problems() + logger_problems
        if not self.eval.benchmarks:
            problems.append(f"eval.benchmarks: want {describe_evaluated()}, got none")
        if self.retain_records and len(self.eval.data_benchmarks()) != 1:
            count = len(self.eval.data_benchmarks())
            problems.append(f"retain_records: serves one benchmark, got {count}; want "
                "retain_model=PATH")
        if self.retain_records and self.retain_model:
            problems.append("retain_records: retain_model is given too; want one of the two")
        return problems + self.prompts.find_problems()

    @property
    def prompts(self) -> PromptKeys:
        """Return the keys that say how a question is put to a model."""
        return PromptKeys(self.template, self.chat)


@dataclasses.dataclass
class ChatCommand:
    """Questions to several models, answered side by side."""

    target: str | None = key(None, "the model before it unlearned (folder or hub name); of a run: "
        "known")
    retain_model: str | None = key(None, "the model that never saw the forget set, likewise")
    spans: str | None = key(None, "span file (of tif identify) whose unwanted words are marked; of "
        "a run: known")
    max_new_tokens: int = key(200, "tokens of an answer at most; of a run: its "
        "eval.max_new_tokens. Answers are greedy", at_least=1)
    memory: str = key("auto", "models in memory at once: all; one (loaded after the other, for "
        "each question); auto = all where they fit", choices=("auto", "all", "one"))
    device: str = key("auto", "cpu, cuda, ...; auto = a GPU where there is one")
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = self.data.find_problems()
        if not any((self.model.path, self.target, self.retain_model)):
            problems.append("model.path: want a run folder, or a Hugging Face folder or hub name "
                "as model.path, target or retain_model, got null")
        return problems


@dataclasses.dataclass
class Identify(Config):
    """A run's configuration, of which only what the identifier reads is checked, and the output."""

    out: str | None = key(
        None, "span file to write (.jsonl); null = <run.folder>/spans/<kind>-<hash>.jsonl"
    )

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = self.data.find_problems() + self.identifier.find_problems(self.model)
        return problems + self.logger.find_problems()
