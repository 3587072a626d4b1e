"""Section `eval` of tif.fit and tif.evaluate: what is evaluated, and by which rules.

A benchmark declares the keys of its place itself (`tif.data.benchmarks.benchmark`); `make_rules`
adds them as sections: `eval.tofu.path`, `eval.muse_news.path`, ...
"""

import dataclasses
from typing import Any, TypeVar

from tif.config import registry
from tif.config.keys import key
from tif.config.registry import entries

R = TypeVar("R")
LM_EVAL = "lm-eval:"
# See metrics/failures.py.
FAILURES = (
    "collapse", "under_forgetting", "over_forgetting", "identifier", "nothing_to_forget",
)  # fmt: skip


@dataclasses.dataclass
class MaxSamples:
    """Questions evaluated of each set, the first n; null = as eval.protocol says."""

    forget: int | None = key(None, "forget questions evaluated; also of MUSE's *_forget and "
        "*_holdout", at_least=1)
    retain: int | None = key(None, "retain questions evaluated; also of MUSE's *_retain",
        at_least=1)
    real_authors: int | None = key(None, "real-author questions evaluated", at_least=1)
    world_facts: int | None = key(None, "world-fact questions evaluated", at_least=1)


@dataclasses.dataclass
class LmEval:
    """The lm-eval package (pip install 'tif-unlearning[lm-eval]'), for benchmarks lm-eval:TASK."""

    folder: str | None = key(None, "folder of task files besides lm-eval's own")
    limit: int | None = key(None, "only the first n questions of each task; null = all", at_least=1)
    batch_size: int = key(8, "questions in a batch", at_least=1)


@dataclasses.dataclass
class EvalRules:
    """What is evaluated, and how: the same keys for tif.fit and tif.evaluate."""

    benchmarks: list[str] = key([], "names, comma-separated")
    lm_eval: LmEval = dataclasses.field(default_factory=LmEval)
    protocol: str = key("open-unlearning", "the rules that change numbers: open-unlearning (all "
        "questions, 512 tokens, 200 new ones), or legacy-tofu (locuslab/tofu, NPO and TIF "
        "releases: 300 questions, 200 tokens with the prompt, `Answer:` scored); MUSE has its own "
        "rules", choices=("open-unlearning", "legacy-tofu"))
    paraphrased_questions: bool = key(False, "also ask in other words, where the benchmark has "
        "paraphrased questions: sets <name>_paraphrased; false = only score the forget answers so")
    max_samples: MaxSamples = dataclasses.field(default_factory=MaxSamples)
    max_new_tokens: int | None = key(None, "tokens generated for an answer, greedily; null = as "
        "eval.protocol says", at_least=1)
    tokens_per_batch: int = key(4096, "tokens scored, and prompts times new tokens generated, in "
        "one batch", at_least=16)

    def data_benchmarks(self) -> list[str]:
        """Return the names in `benchmarks` that name data of tif's readers, each once."""
        return [name for name in dict.fromkeys(self.benchmarks) if not name.startswith(LM_EVAL)]

    def lm_eval_tasks(self) -> list[str]:
        """Return the tasks of lm-eval in `benchmarks`, each once."""
        names = dict.fromkeys(self.benchmarks)
        return [name.removeprefix(LM_EVAL) for name in names if name.startswith(LM_EVAL)]

    def find_problems(self) -> list[str]:
        """Return the problems of `benchmarks` and its places, one line each."""
        problems = []
        for name in self.data_benchmarks():
            section = name.replace("-", "_")
            if name not in list_evaluated():
                problems.append(f"eval.benchmarks: want {describe_evaluated()}, got {name!r}")
            elif not getattr(self, section).path:
                problems.append(f"eval.{section}.path: benchmark {name} needs its data, got null")
        if "" in self.lm_eval_tasks():
            problems.append(f"eval.benchmarks: want {LM_EVAL}TASK, got {LM_EVAL}")
        return problems


@dataclasses.dataclass
class Eval(EvalRules):
    """Metrics during training: TOFU's, or MUSE's on muse, lume and text."""

    enabled: bool = key(True, "evaluate at all")
    before_training: bool = key(True, "evaluate the starting model as epoch 0")
    every_n_epochs: int = key(1, "epochs between evaluations, the last always; 0 = only after the "
        "last", at_least=0)
    retain_records: str | None = key(None, "records of the retain model (a run's eval folder) or a "
        "stage's name; null = no forget quality")
    retain_model: str | None = key(None, "the retain model (folder or hub name) instead of its "
        "records: it is evaluated by the run's rules")
    forget_quality: bool = key(True, "compare with the retain model: forget quality, or PrivLeak "
        "on muse and text; needs eval.retain_records or eval.retain_model")
    kl: bool = key(False, "also KL(original || policy) over answer tokens; where no reference "
        "model is in memory, the original is loaded for each evaluation")
    best: str = key("score", "what chooses an epoch on one half of the questions (the other half "
        "reports it; it stays in model_best/ where it is not the last): score (harmonic mean of "
        "usefulness and forgetting, see tif evaluate --metrics), retain_distance (how near the "
        "answers to the forget set are to the retain model's), forget/quality, utility/model, or "
        "none", choices=("score",
        "retain_distance", "forget/quality", "utility/model", "none"))
    audit: list[str] = key([], "attacks of tif audit on the finished run, see tif audit --help "
        "attacks; needs run.export and a retain model that is a stage")
    stop_on: list[str] = key([], f"failures that end the training, of {', '.join(FAILURES)}; all "
        "are always reported")
    samples: int = key(3, "generations shown before and after", at_least=0)

    def find_problems(self) -> list[str]:
        """Return the problems of the section, one line each."""
        problems = super().find_problems()
        if self.retain_records and self.retain_model:
            problems.append("eval.retain_model: eval.retain_records is given too; want null for "
                "one of the two")
        unknown = [name for name in self.stop_on if name not in FAILURES]
        if unknown:
            known = ", ".join(FAILURES)
            problems.append(f"eval.stop_on: want some of {known}, got {', '.join(unknown)}")
        return problems + find_attack_problems("eval.audit", self.audit)


def list_evaluated() -> list[str]:
    """Return the names of the benchmarks that `eval.benchmarks` takes."""
    known = entries("benchmark").items()
    return [name for name, entry in known if hasattr(entry.keys, "path")]


def describe_evaluated() -> str:
    """Return all that `eval.benchmarks` takes, as in: lume, tofu or lm-eval:TASK."""
    return f"{', '.join(list_evaluated())} or {LM_EVAL}TASK"


def _benchmarks_field() -> tuple[str, Any, Any]:
    text = f"names, comma-separated, of {describe_evaluated()}; in a run: evaluated besides "
    return "benchmarks", list[str], key([], f"{text}data.benchmark")


def make_rules(base: type[R], **values: Any) -> R:
    """Return `EvalRules` or `Eval` with these values, and the defaults of all other keys."""
    return registry.extend_section(base, "benchmark", _benchmarks_field)(**values)


def find_attack_problems(name: str, attacks: list[str]) -> list[str]:
    """Return what is wrong with a list of attacks under the key `name`, one line each."""
    unknown = [attack for attack in attacks if attack not in entries("attack")]
    problem = f"{name}: want some of {', '.join(entries('attack'))}, got {', '.join(unknown)}"
    return [problem] if unknown else []
