"""Every key of the configuration: type, default, meaning. The README and `--help` are made from this file.

Sections are dataclasses; `key` attaches the sentence, the choices and the bounds that `tif.config` shows and checks.
`identifier`, `loss`, `model` and `trainer` have files of their own.
"""

import dataclasses
from typing import Any

from tif.config.identifier_section import Identifier
from tif.config.keys import key
from tif.config.loss_section import Loss
from tif.config.model_section import Model, TrainerKeys

FAILURES = ("collapse", "under_forgetting", "over_forgetting", "identifier")  # see metrics/failures.py

__all__ = ["Config", "Identifier", "Loss", "Model", "TrainerKeys", "key"]


@dataclasses.dataclass
class Run:
    """Where a run lives and what it keeps."""

    name: str = key("run", "the run's folder is <folder>/<name>; a name in use gets -2, -3, ...")
    folder: str = key("runs", "parent of run folders; stages live in <folder>/stages")
    seed: int = key(
        0, "owner of every random draw: initial weights, batch order, retain pairing", at_least=0, at_most=2**32
    )
    resume: str = key(
        "auto",
        "auto: an unfinished run of the same config goes on from its newest whole checkpoint; never: a new folder; or "
        "the path of a checkpoint, whose run goes on from there",
    )
    keep_checkpoints: int = key(
        2, "checkpoints kept for resuming (the newest); with one, a damaged one means starting over; 0 writes none",
        at_least=0,
    )  # fmt: skip
    checkpoint_every_n_steps: int | None = key(
        None, "optimizer steps between checkpoints within an epoch; null = one an epoch (and one at SIGTERM, SIGUSR1)",
        at_least=1,
    )  # fmt: skip
    export: bool = key(True, "write the policy in Hugging Face format to model/")


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

    benchmark: str = key("fictitious", "which reader", choices=("fictitious", "tofu", "muse", "text"))
    path: str | None = key(
        None,
        "tofu: a folder of TOFU's JSON files, or the hub name locuslab/TOFU; muse: a folder of News or Books as "
        "muse_bench lays them out, or the hub name muse-bench/MUSE-News, muse-bench/MUSE-Books; text: a file to forget "
        "(.txt, .jsonl, .json), or a folder with forget.*, retain.*, holdout.*",
    )
    split: str | None = key(
        None,
        "tofu: the forget split, from which the retain split follows; null = forget10. muse: forget, scal_1 to scal_4, "
        "sust_1 to sust_4; null = forget",
    )
    max_retain: int | None = key(None, "tofu: use only the first n retain questions; null = all", at_least=1)
    train: str = key(
        "forget",
        "what the training loop reads: forget (unlearn), retain (retain model), full (target model)",
        choices=("forget", "retain", "full"),
    )
    template: str = key(
        "Question: {prompt}\nAnswer:",
        "prompt format, the answer follows after one blank; `chat` = the tokenizer's own chat template",
    )
    max_tokens: int = key(512, "longer samples (documents) are trained on in pieces of this many tokens", at_least=16)
    overlap: str = key("gw", "label of a token that touches unwanted and general characters", choices=("gw", "uw"))
    batch_size: int = key(32, "samples of an optimizer step, shared by all processes", at_least=1)
    max_tokens_per_batch: int | None = key(
        None,
        "tokens that a device holds at once: a step's batch is scored in parts of so many, with the same result; null "
        "= 512 on a CPU, else 4096",
        at_least=16,
    )
    batching: str = key(
        "auto",
        "packed: samples end to end in one row, no padding; padded; auto = packed where the model keeps them apart",
        choices=("auto", "packed", "padded"),
    )
    fictitious: Fictitious = dataclasses.field(default_factory=Fictitious)


@dataclasses.dataclass
class Optimizer:
    """AdamW with linear warm-up and linear decay to 0."""

    name: str = key(
        "adamw",
        "adamw: torch's, fused; adamw8bit: its state in 8 bits, 2 bytes a weight in place of 8; paged_: on a GPU the "
        "state moves to the CPU's memory when there is no room (the last three are bitsandbytes')",
        choices=("adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit"),
    )
    lr: float = key(1e-5, "peak learning rate", above=0)
    weight_decay: float = key(0.01, "AdamW's decoupled weight decay", at_least=0)
    warmup_epochs: float = key(1.0, "epochs of linear warm-up from 0", at_least=0)
    decay: str = key(
        "linear", "after warm-up: linear (to 0 at the last step) or constant", choices=("linear", "constant")
    )


@dataclasses.dataclass
class MaxSamples:
    """Questions evaluated of each set, the first n; null = as eval.protocol says."""

    forget: int | None = key(None, "forget questions evaluated; also of MUSE's *_forget and *_holdout", at_least=1)
    retain: int | None = key(None, "retain questions evaluated; also of MUSE's *_retain", at_least=1)
    real_authors: int | None = key(None, "real-author questions evaluated", at_least=1)
    world_facts: int | None = key(None, "world-fact questions evaluated", at_least=1)


@dataclasses.dataclass
class Asking:
    """How a model is asked: the same for `python -m tif.fit` and `python -m tif.evaluate`."""

    protocol: str = key(
        "open-unlearning",
        "the rules that change numbers: open-unlearning (all questions, 512 tokens, 200 new ones), or legacy-tofu "
        "(locuslab/tofu, NPO and TIF releases: 300 questions, 200 tokens with the prompt, `Answer:` scored); MUSE has "
        "its own rules",
        choices=("open-unlearning", "legacy-tofu"),
    )
    paraphrased_questions: bool = key(
        False, "also ask in other words: sets <name>_paraphrased, where the benchmark has paraphrased questions"
    )
    max_samples: MaxSamples = dataclasses.field(default_factory=MaxSamples)
    max_new_tokens: int | None = key(
        None, "tokens generated for an answer, greedily; null = as eval.protocol says", at_least=1
    )
    tokens_per_batch: int = key(
        4096, "tokens scored, and prompts times new tokens generated, in one batch", at_least=16
    )


@dataclasses.dataclass
class LmEval:
    """The lm-eval package (pip install 'tif-unlearning[lm-eval]'), where `benchmarks` asks for its tasks."""

    folder: str | None = key(None, "folder of task files besides lm-eval's own")
    limit: int | None = key(None, "only the first n questions of each task; null = all", at_least=1)
    batch_size: int = key(8, "questions in a batch", at_least=1)


@dataclasses.dataclass
class Eval(Asking):
    """Metrics during training: TOFU's, or MUSE's on muse and text."""

    enabled: bool = key(True, "evaluate at all")
    before_training: bool = key(True, "evaluate the starting model as epoch 0")
    every_n_epochs: int = key(1, "epochs between evaluations, the last always; 0 = only after the last", at_least=0)
    retain_records: str | None = key(
        None, "records of the retain model (a run's eval folder) or a stage's name; null = no forget quality"
    )
    forget_quality: bool = key(
        True, "compare with the retain model: forget quality, or PrivLeak on muse and text; needs eval.retain_records"
    )
    kl: bool = key(
        False,
        "also KL(original || policy) over answer tokens; where no reference model is in memory, the original is loaded "
        "for each evaluation",
    )
    benchmarks: dict[str, Any] = key(
        {},
        "evaluated besides the run's own: tofu, muse-news, muse-books, text (hub name or folder), lm-eval (tasks): "
        "eval.benchmarks.lm-eval=mmlu,wmdp_bio",
    )
    lm_eval: LmEval = dataclasses.field(default_factory=LmEval)
    best: str = key(
        "score",
        "what makes an epoch the best, which is kept in model_best/ where it is not the last: score (harmonic mean of "
        "usefulness and forgetting, see python -m tif.evaluate --metrics), forget/quality, utility/model, or none",
        choices=("score", "forget/quality", "utility/model", "none"),
    )
    stop_on: list[str] = key([], f"failures that end the training, of {', '.join(FAILURES)}; all are told in any case")
    samples: int = key(3, "generations shown before and after", at_least=0)


@dataclasses.dataclass
class Wandb:
    """Weights & Biases, through Lightning's logger; the key comes from the environment only."""

    enabled: bool = key(False, "also log to W&B")
    project: str = key("tif", "W&B project")
    entity: str | None = key(None, "W&B entity; null = your default")
    offline: bool = key(False, "write to disk only, for `wandb sync` later")


@dataclasses.dataclass
class Logger:
    """metrics.jsonl is always written."""

    wandb: Wandb = dataclasses.field(default_factory=Wandb)


@dataclasses.dataclass
class Config:
    """One experiment. `combinations` lists what single keys cannot tell."""

    run: Run = dataclasses.field(default_factory=Run)
    data: Data = dataclasses.field(default_factory=Data)
    identifier: Identifier = dataclasses.field(default_factory=Identifier)
    model: Model = dataclasses.field(default_factory=Model)
    loss: Loss = dataclasses.field(default_factory=Loss)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    trainer: TrainerKeys = dataclasses.field(default_factory=TrainerKeys)
    eval: Eval = dataclasses.field(default_factory=Eval)
    logger: Logger = dataclasses.field(default_factory=Logger)
    stages: dict[str, Any] = key(
        {}, "runs that model.path and eval.retain_records may name (target, retain): each this config with its own keys"
    )
    stage: str | None = key(None, "make this stage only")

    def combinations(self) -> list[str]:
        """Problems between keys, one line each."""
        unlearning = self.data.train == "forget"
        problems = self.identifier_combinations() if unlearning else self.data_combinations()
        if unlearning and self.identifier.kind == "generative" and self.identifier.generative.dry_run:
            problems.append("identifier.generative.dry_run: asks nothing, so there is nothing to unlearn; want "
                            "python -m tif.identify with the same keys")  # fmt: skip
        problems += [f"loss.{problem}" for problem in self.loss.combinations(self.data.train)]
        if unlearning and self.eval.enabled and self.eval.forget_quality and not self.eval.retain_records:
            problems.append(
                f"eval.retain_records: {self.quality()} needs the retain model's records, got null; give a run's eval "
                "folder or a stage that makes them, or eval.forget_quality=false"
            )
        if self.loss.lowered(self.data.train) and self.run.export:
            problems.append("run.export: the logits of loss.whp are made of two models, which are no one model/; want "
                            "false, or forget=whp, which learns them")  # fmt: skip
        if unlearning and self.loss.whp is not None and self.trainer.strategy == "fsdp2":
            problems.append("trainer.strategy: loss.whp needs whole models, fsdp2 has shards; want ddp or auto")
        if self.trainer.strategy == "fsdp2" and self.optimizer.name != "adamw":
            problems.append(f"optimizer.name: {self.optimizer.name} (bitsandbytes) updates whole weights, fsdp2 has "
                            "shards; want adamw, or trainer.strategy=ddp")  # fmt: skip
        negated = unlearning and self.loss.task_vector is not None
        problems += self.model.combinations(self.trainer.strategy, negated)
        if unknown := [name for name in self.eval.stop_on if name not in FAILURES]:
            problems.append(f"eval.stop_on: want some of {', '.join(FAILURES)}, got {', '.join(map(str, unknown))}")
        if not self.model.path and not self.model.init:
            problems.append(
                "model.path: want a Hugging Face folder or hub name, or model.init for a model from scratch"
            )
        if self.data.template != "chat" and "{prompt}" not in self.data.template:
            problems.append(f"data.template: want a text with {{prompt}} in it, or chat; got {self.data.template!r}")
        return problems

    def quality(self) -> str:
        """What compares the policy with the retain model."""
        return "PrivLeak" if self.data.benchmark in ("muse", "text") else "forget quality"

    def data_combinations(self) -> list[str]:
        """Those of section `data`."""
        if self.data.benchmark == "tofu" and not self.data.path:
            return ["data.path: tofu needs a folder of TOFU's JSON files or the hub name locuslab/TOFU, got null"]
        if self.data.benchmark == "muse" and not self.data.path:
            return ["data.path: muse needs a folder of News or Books, or the hub name muse-bench/MUSE-News, got null"]
        if self.data.benchmark == "text" and not self.data.path:
            return ["data.path: text needs a file or folder of your own, got null"]
        return []

    def identifier_combinations(self) -> list[str]:
        """Those of the sections that an identifier reads: all that `python -m tif.identify` asks for."""
        problems, own = self.data_combinations(), self.identifier
        if own.kind == "precomputed" and not own.path:
            problems.append("identifier.path: precomputed needs a span file or a folder of released masks, got null")
        if own.kind == "generative":
            problems += [f"identifier.generative.{problem}" for problem in own.generative.combinations()]
        if own.kind == "causal_lm" and not own.causal_lm.model:
            problems.append(
                "identifier.causal_lm.model: want a causal LM that never saw the forget set (a Hugging Face folder, "
                "hub name or stage), got null"
            )
        if own.kind == "contrastive":
            if not (own.contrastive.model or self.model.path):
                problems.append(
                    "identifier.contrastive.model: want the model that learned the forget set (a Hugging Face folder, "
                    "hub name or stage), got null, and model.path is null too"
                )
            if not (own.contrastive.base or self.model.base):
                problems.append(
                    "identifier.contrastive.base: want a model that did not learn the forget set (a Hugging Face "
                    "folder, hub name or stage), got null, and model.base is null too"
                )
        return problems
