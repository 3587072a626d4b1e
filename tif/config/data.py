"""Section `data`: what is learned and forgotten, and how it becomes batches."""

import dataclasses
import datetime
from typing import Any

from tif.config import registry
from tif.config.errors import brief
from tif.config.keys import key

CHAT = "chat"  # as `template`: the tokenizer's own chat template
AUTO = "auto"  # as `template`: the chat template where the tokenizer has one, else this:
PLAIN = "Question: {prompt}\nAnswer:"
TOFU_RETAIN_SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
TEMPLATE_HELP = (
    "prompt format. The answer follows after one blank, or where `{answer}` or a blank ends it; "
    "`chat` = the tokenizer's own chat template, with the keys of section chat; auto = chat where "
    "the tokenizer has one, else the text `Question: {prompt}`, a line break and `Answer:`"
)
DATE_FORMAT = "%d %b %Y"
# Variables of a chat template that have keys of their own or are set by us.
RESERVED = ("messages", "add_generation_prompt", "date_string", "strftime_now", "chat_template")


@dataclasses.dataclass
class Chat:
    """What the tokenizer's own chat template is given beside the question."""

    system: str = key("", "system message before the question; empty = none, and the chat template "
        "may write its own")
    date: str = key("10 Apr 2025", "the day that a chat template which asks for today's date gets; "
        "the default is open-unlearning's")
    kwargs: dict[str, Any] = key({}, "further variables of the chat template, such as "
        "enable_thinking=false")


@dataclasses.dataclass(frozen=True)
class PromptKeys:
    """The keys `template` and `chat`, which say together how a question is put to a model."""

    template: str
    chat: Chat = dataclasses.field(default_factory=Chat)

    @property
    def is_chat(self) -> bool:
        """Return whether the prompt format is the tokenizer's own chat template."""
        return self.template.strip() == CHAT

    @property
    def is_auto(self) -> bool:
        """Return whether the tokenizer decides about the prompt format."""
        return self.template.strip() == AUTO

    def describe(self) -> dict[str, Any]:
        """Return the keys that decide about prompts, as JSON values."""
        chat = {"chat": dataclasses.asdict(self.chat)} if self.is_chat else {}
        return {"template": self.template, **chat}

    def find_problems(self, section: str = "") -> list[str]:
        """Return what is wrong with the keys of a section, as "data.", one line each."""
        chat, problems = self.chat, []
        before, _, after = self.template.partition("{answer}")
        if self.is_chat or self.is_auto:
            pass
        elif self.template.startswith(f"{CHAT}|"):
            problems.append(f"{section}template: want chat, and the system message as "
                f"{section}chat.system; got {brief(self.template)}")
        elif "{prompt}" not in before:
            problems.append(f"{section}template: want a text with {{prompt}} in it, chat or auto; "
                f"got {brief(self.template)}")
        elif after:
            problems.append(f"{section}template: want nothing after {{answer}}, got {after!r}")
        for name in ("system", "kwargs"):
            value = getattr(chat, name)
            if value and not (self.is_chat or self.is_auto):
                problems.append(f"{section}chat.{name}: only {section}template=chat reads it, got "
                    f"{brief(value)} with template {brief(self.template)}")
        try:
            datetime.datetime.strptime(chat.date, DATE_FORMAT)
        except ValueError:
            problems.append(f"{section}chat.date: want a date such as 10 Apr 2025, got "
                f"{brief(chat.date)}")
        for name in chat.kwargs.keys() & set(RESERVED):
            keys = f"{section}chat.system and {section}chat.date"
            problems.append(f"{section}chat.kwargs: {name} is set by tif (see {keys}); want others")
        return problems


@dataclasses.dataclass
class Fictitious:
    """The embedded generator of invented authors."""

    authors: int = key(40, "number of invented authors", at_least=2)
    questions_per_author: int = key(10, "questions asked about each author", at_least=1)
    forget_share: float = key(0.1, "share of authors to forget, the last ones", above=0)
    seed: int = key(0, "the authors' facts and wordings", at_least=0)
    shared_facts: float | None = key(None, "share of a forgotten author's facts that an author of "
        "the retain set has too, asked alike; null = as drawn, with what is shared by chance",
        at_least=0, at_most=1)
    interleaved: float = key(0.0, "share of answers in which a general clause follows the fact, as "
        "in: The CEO NAME announced significant profits", at_least=0, at_most=1)
    language: str = key("en", "of questions and answers: en, or the YAML file of another, as those "
        "of lab/languages in the repository")
    wordings: int = key(1, "ways in which each fact is asked; the fifth implies it (English)",
        at_least=1)
    forget_wordings: int | None = key(None, "ways of a forget author's facts that are forget "
        "samples, the first ones; null = all. The evaluation sets forget_reworded and "
        "forget_implied ask in the second to fifth way", at_least=1)


@dataclasses.dataclass
class TofuSources:
    """Where tofu.yaml finds what others published: other keys name these as ${tofu.masks}."""

    retain_logs: str = key("open-unlearning/eval", "open-unlearning's logs of its retain models: "
        "the hub name of its data set, or a folder laid out like it "
        "(tofu_MODEL_retain90/TOFU_EVAL.json)")
    retain_split: str = key("retain90", "what the log's retain model was trained on; tofu.yaml "
        "sets it by data.split", choices=tuple(TOFU_RETAIN_SPLITS.values()))
    masks: str = key("xzhou98/Unlearning-TPO/TOFU/data", "the authors' masks: this folder of their "
        "repository on GitHub, or a folder that holds forgetXX_with_common_words_gpt")


@dataclasses.dataclass
class Data:
    """What is learned and forgotten, and how it becomes batches."""

    benchmark: str = key("fictitious", "the data, see tif ls benchmarks",
        choices=registry.Names("benchmark"))
    path: str | None = key(None, "its folder, file or hub name: see tif ls benchmarks")
    split: str | None = key(None, "tofu: the forget split, from which the retain split follows; "
        "null = forget10. muse: forget, scal_1 to scal_4, sust_1 to sust_4; null = forget. lume: "
        "task1 (stories), task2 (invented people), task3 (biographies); null = all")
    holdout: str | None = key(None, "tofu: a split that no model read, as holdout10: evaluated "
        "too, for membership inference; null = none")
    split_text: str = key("document", "text: a .txt is one document, or each paragraph (between "
        "empty lines) or line of it is", choices=("document", "paragraph", "line"))
    max_retain: int | None = key(None, "tofu: use only the first n retain questions; null = all",
        at_least=1)
    train: str = key("forget", "what is trained on: forget (unlearn), retain (retain model), full "
        "(target model)", choices=("forget", "retain", "full"))
    request: str | None = key(None, "unlearn only the forget samples whose id matches this, as "
        "fictitious/author36/*: one request of several; all are evaluated; null = all")
    template: str = key(AUTO, TEMPLATE_HELP)
    chat: Chat = dataclasses.field(default_factory=Chat)
    max_tokens: int = key(512, "longer samples (documents) are trained on in pieces of this many "
        "tokens", at_least=16)
    overlap: str = key("gw", "label of a token that touches unwanted and general characters",
        choices=("gw", "uw"))
    batch_size: int = key(32, "samples of an optimizer step, shared by all processes", at_least=1)
    max_tokens_per_batch: int | None = key(None, "tokens that a device holds at once: a step's "
        "batch is scored in parts of so many, with the same result; null = 512 on a CPU, else 4096",
        at_least=16)
    batching: str = key("auto", "packed: samples end to end in one row, no padding; padded; auto = "
        "packed where a probe on the device finds the scores of samples alone; packed is refused "
        "where it does not", choices=("auto", "packed", "padded"))
    fictitious: Fictitious = dataclasses.field(default_factory=Fictitious)

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""
        problems = self.prompts.find_problems("data.")
        wants = self.reader.wants
        if wants and not self.path:
            problems.append(f"data.path: {self.benchmark} needs {wants}, got null")
        return problems

    @property
    def prompts(self) -> PromptKeys:
        """Return the keys that say how a question is put to a model."""
        return PromptKeys(self.template, self.chat)

    @property
    def reader(self) -> Any:
        """Return the benchmark as it is registered; of an unknown name, the default."""
        known = registry.entries("benchmark")
        return known.get(self.benchmark, known[Data.benchmark])
