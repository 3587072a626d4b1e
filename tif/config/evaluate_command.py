"""The keys of `python -m tif.evaluate`."""

import dataclasses

from tif.config.keys import key
from tif.config.schema import Asking, LmEval, Model

BENCHMARKS = ("tofu", "muse-news", "muse-books", "text")
LM_EVAL = "lm-eval"


@dataclasses.dataclass
class Tofu:
    """Where TOFU is."""

    path: str = key("locuslab/TOFU", "hub name, or a folder of TOFU's JSON files")
    split: str = key("forget10", "forget split", choices=("forget01", "forget05", "forget10"))


@dataclasses.dataclass
class Muse:
    """Where MUSE is."""

    news: str = key("muse-bench/MUSE-News", "hub name, or a folder laid out as muse_bench's data/news")
    books: str = key("muse-bench/MUSE-Books", "hub name, or a folder laid out as muse_bench's data/books")


@dataclasses.dataclass
class Membership:
    """Membership attacks that cost more than what is scored anyway."""

    reference: str | None = key(None, "model that never saw the texts, for the reference attack (folder or hub name)")
    gradient_norm: bool = key(False, "the gradient norm attack too: a backward pass for each text")


@dataclasses.dataclass
class Fluency:
    """Fluency by a classifier; repetition and n-gram entropy are always there."""

    classifier: str | None = key(
        None, "sequence classifier (folder or hub name) whose class `clean`, or its first, says that a text is language"
    )


@dataclasses.dataclass
class Evaluate:
    """What is evaluated, against what."""

    records: str | None = key(None, "a recorded evaluation: a run's eval/<epoch> folder or an evaluation log")
    retain_records: str | None = key(None, "the retain model's evaluation, likewise; null = no forget quality")
    retain_model: str | None = key(None, "the retain model (folder or hub name), evaluated by the same rules")
    original: str | None = key(
        None,
        "what the model was before it unlearned (folder or hub name): KL(original || model) over answer tokens too",
    )
    allow_mismatch: bool = key(
        False, "compare with the retain model also where the two do not compare; the output says so"
    )
    draws: int = key(2000, "bootstrap draws behind each interval", at_least=100, at_most=100_000)
    seed: int = key(0, "owner of the bootstrap's draws; nothing else is drawn", at_least=0, at_most=2**32)
    benchmarks: str = key(
        "tofu", f"what the model is asked, comma-separated: {', '.join(BENCHMARKS)}, lm-eval:TASK,TASK,..."
    )
    out: str = key("evaluations", "where records are kept; what is there already is not made again")
    template: str = key(
        "Question: {prompt}\nAnswer:",
        "prompt format of TOFU and of your own questions; the answer follows after one blank; `chat` = the tokenizer's "
        "own chat template",
    )
    device: str = key("auto", "cpu, cuda, ...; auto = a GPU where there is one")
    batching: str = key(
        "auto",
        "packed: texts end to end in one row, no padding; padded; auto = packed where the model keeps them apart",
        choices=("auto", "packed", "padded"),
    )
    model: Model = dataclasses.field(default_factory=Model)
    eval: Asking = dataclasses.field(default_factory=Asking)
    tofu: Tofu = dataclasses.field(default_factory=Tofu)
    muse: Muse = dataclasses.field(default_factory=Muse)
    text: str | None = key(None, "benchmark text: a file to forget, or a folder with forget.*, retain.*, holdout.*")
    membership: Membership = dataclasses.field(default_factory=Membership)
    fluency: Fluency = dataclasses.field(default_factory=Fluency)
    lm_eval: LmEval = dataclasses.field(default_factory=LmEval)

    def asked(self) -> tuple[list[str], list[str]]:
        """`benchmarks` as names of ours and tasks of lm-eval."""
        ours: list[str] = []
        tasks: list[str] = []
        into = ours
        for word in filter(None, (word.strip() for word in self.benchmarks.split(","))):
            if word.startswith(f"{LM_EVAL}:"):
                into, word = tasks, word.removeprefix(f"{LM_EVAL}:")
            into = ours if word in BENCHMARKS else into
            into.append(word)
        return list(dict.fromkeys(ours)), list(dict.fromkeys(tasks))

    def combinations(self) -> list[str]:
        """Problems between keys, one line each."""
        if self.records:
            return ["model.path: records= needs no model; want one of the two"] if self.model.path else []
        if not self.model.path:
            return ["model.path: want a Hugging Face folder or hub name, or records=LOG (see --help), got null"]
        names, tasks = self.asked()
        problems = [
            f"benchmarks: want {', '.join(BENCHMARKS)} or {LM_EVAL}:TASK, got {name!r}"
            for name in names
            if name not in BENCHMARKS
        ]
        if not names and not tasks:
            problems.append(f"benchmarks: want {', '.join(BENCHMARKS)} or {LM_EVAL}:TASK, got {self.benchmarks!r}")
        if "text" in names and not self.text:
            problems.append("text: benchmark text needs a file or folder of your own, got null")
        if self.retain_records and len(names) != 1:
            problems.append(f"retain_records: serves one benchmark, got {len(names)}; want retain_model=PATH")
        if self.retain_records and self.retain_model:
            problems.append("retain_records: retain_model is given too; want one of the two")
        if self.template != "chat" and "{prompt}" not in self.template:
            problems.append(f"template: want a text with {{prompt}} in it, or chat; got {self.template!r}")
        return problems
