"""Section `data`: what is learned and forgotten, and how it becomes batches."""

import dataclasses

from tif.config.keys import key

MUSE = ("muse", "muse-news", "muse-books")
TEMPLATE_HELP = (
    "prompt format. The answer follows after one blank, or where `{answer}` or a blank ends it; "
    "`chat` = the tokenizer's own chat template, `chat|TEXT` with TEXT as system message"
)


def is_chat(template: str) -> bool:
    """Return whether a prompt format is the tokenizer's own chat template."""
    return template.partition("|")[0].strip() == "chat"


def find_template_problem(template: str) -> str | None:
    """Return what is wrong with a prompt format, or None."""
    if is_chat(template):
        return None
    before, _, after = template.partition("{answer}")
    if "{prompt}" not in before:
        return f"want a text with {{prompt}} in it, or chat; got {template!r}"
    return f"want nothing after {{answer}}, got {after!r}" if after else None


@dataclasses.dataclass
class Fictitious:
    """The embedded generator of invented authors."""

    authors: int = key(40, "number of invented authors", at_least=2)
    questions_per_author: int = key(10, "questions asked about each author", at_least=1)
    forget_share: float = key(0.1, "share of authors to forget, the last ones", above=0)
    seed: int = key(0, "the authors' facts and wordings", at_least=0)


@dataclasses.dataclass
class Data:
    """What is learned and forgotten, and how it becomes batches."""

    benchmark: str = key("fictitious", "the data, by the names that eval.benchmarks takes too; "
        "muse = either corpus of MUSE", choices=("fictitious", "tofu", *MUSE, "text"))
    path: str | None = key(None, "tofu: a folder of TOFU's JSON files, or the hub name "
        "locuslab/TOFU; muse: a folder of News or Books as muse_bench lays them out, or the hub "
        "name muse-bench/MUSE-News, muse-bench/MUSE-Books; text: a file to forget (.txt, .jsonl, "
        ".json), or a folder with forget.*, retain.*, holdout.*")
    split: str | None = key(None, "tofu: the forget split, from which the retain split follows; "
        "null = forget10. muse: forget, scal_1 to scal_4, sust_1 to sust_4; null = forget")
    split_text: str = key("document", "text: a .txt is one document, or each paragraph (between "
        "empty lines) or line of it is", choices=("document", "paragraph", "line"))
    max_retain: int | None = key(None, "tofu: use only the first n retain questions; null = all",
        at_least=1)
    train: str = key("forget", "what is trained on: forget (unlearn), retain (retain model), full "
        "(target model)", choices=("forget", "retain", "full"))
    template: str = key("Question: {prompt}\nAnswer:", TEMPLATE_HELP)
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
        muse = "a folder of News or Books, or the hub name muse-bench/MUSE-News"
        wants = dict.fromkeys(MUSE, muse) | {"text": "a file or folder of your own",
            "tofu": "a folder of TOFU's JSON files or the hub name locuslab/TOFU"}
        if self.path or self.benchmark not in wants:
            return []
        return [f"data.path: {self.benchmark} needs {wants[self.benchmark]}, got null"]

    def forget_quality_name(self) -> str:
        """Return the name of what compares the policy with the retain model."""
        return "PrivLeak" if self.benchmark in (*MUSE, "text") else "forget quality"
