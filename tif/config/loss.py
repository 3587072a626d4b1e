"""Section `loss`: every key of the unlearning methods."""

import dataclasses
from typing import Any

from tif.config.keys import key

FORGET = (
    "lpl", "npo", "simnpo", "ga", "wga", "satimp", "idk", "dpo", "kto", "undial", "ceu", "pdu", "muse_logit_npo",
    "rmu", "whp", "ce",
)  # fmt: skip


@dataclasses.dataclass
class Rmu:
    """Where hidden states are steered, and whereto."""

    layer: int = key(7, "decoder layer whose output is steered, counted from 0; retain=hidden keeps it", at_least=0)
    scale: float = key(2.0, "length of the random vector that forget tokens are steered to", above=0)
    seed: int = key(0, "draws that vector", at_least=0)


@dataclasses.dataclass
class Dual:
    """The retain weight as a multiplier that grows while the retain term is above a limit (PDU)."""

    limit: float | None = key(None, "largest retain term that is accepted (nats for ce); null = a fixed retain_weight")
    step: float = key(1.0, "retain weight added per training step and unit above the limit", above=0)
    warmup_epochs: int = key(5, "epochs at retain_weight before it moves", at_least=0)


@dataclasses.dataclass
class Alternates:
    """What idk, dpo and kto want in the answer's place; each epoch draws one for each question."""

    kind: str = key(
        "refusals",
        "refusals: a hundred of our own; generated: other answers, drawn from the model before it unlearns (AltPO)",
        choices=("refusals", "generated"),
    )
    count: int = key(5, "generated: other answers to each question", at_least=1)
    prompt: str = key(
        "{prompt}\nAnswer: {answer}\nNow write another version of this answer, with other plausible facts.",
        "generated: how they are asked for; what stands in data.template in the question's place",
    )
    temperature: float = key(1.0, "generated: of the draws", above=0)
    max_new_tokens: int = key(200, "generated: tokens of one", at_least=1)


@dataclasses.dataclass
class Loss:
    """forget_weight * forget term (on a mask) + pl_weight * preservation term + retain_weight * retain term."""

    forget: str = key(
        "lpl",
        "forget term, each in configs/loss/<name>.yaml; ce = finetuning; module:function = your own",
        choices=FORGET,
        or_own=True,
    )
    on: str = key("uw", "answer tokens that the forget term sees", choices=("uw", "all"))
    skip: int = key(0, "answer tokens at the start that the forget term does not see", at_least=0)
    preserve: str = key("pl", "preservation term on general words (GW)", choices=("pl", "none"))
    retain: str = key(
        "none",
        "term on a retain sample drawn for each forget sample: ce (cross-entropy), kl (from the original model), "
        "hidden (distance from the original's hidden states at rmu.layer)",
        choices=("none", "ce", "kl", "hidden"),
    )
    beta: float = key(
        0.3,
        "lpl, npo, simnpo, dpo, kto: larger saturates sooner; undial: logits taken from the true token; wga, satimp: "
        "power of its probability",
        above=0,
    )
    beta2: float = key(1.0, "satimp: power of 1 - probability", at_least=0)
    gamma: float = key(0.0, "simnpo: margin in nats per token", at_least=0)
    lpl_baseline: str = key(
        "none", "mean: subtract the vocabulary's mean logit, which softmax cannot see", choices=("none", "mean")
    )
    lpl_reduction: str = key(
        "sample",
        "sample: log-sigmoid of each sample's mean; batch: of the batch mean, as released",
        choices=("sample", "batch"),
    )
    pl_reduction: str = key("sum", "over a sample's GW tokens (the released code: sum)", choices=("sum", "mean"))
    forget_weight: float = key(1.0, "weight of the forget term", at_least=0)
    pl_weight: float = key(0.01, "the paper's lambda, 0 to 0.01", at_least=0)
    retain_weight: float = key(1.0, "weight of the retain term", at_least=0)
    task_vector: float | None = key(
        None,
        "forget=ce on the forget set: evaluate and export start - task_vector * (trained - start); null = the trained "
        "weights",
        above=0,
    )
    whp: float | None = key(
        None,
        "alpha of z_start - alpha relu(z_reinforced - z_start), Who's Harry Potter's logits. forget=whp: learn them; "
        "forget=ce on the forget set: the policy becomes the reinforced model, and they are evaluated; null = no",
        above=0,
    )
    whp_epochs: int = key(5, "forget=whp: epochs in which the reinforced model learns the forget set", at_least=1)
    chunk_tokens: int = key(
        1024, "answer tokens whose logits (of the whole vocabulary) are held at once; more are made in chunks, twice",
        at_least=1,
    )  # fmt: skip
    alternates: Alternates = dataclasses.field(default_factory=Alternates)
    rmu: Rmu = dataclasses.field(default_factory=Rmu)
    dual: Dual = dataclasses.field(default_factory=Dual)
    own: dict[str, Any] = key({}, "keys of a forget term of your own")

    def is_whp_at_inference(self, train: str) -> bool:
        """Return whether the policy is the reinforced model of `whp`, evaluated with lowered logits."""
        return self.forget == "ce" and self.whp is not None and train == "forget"

    def find_problems(self, train: str) -> list[str]:
        """Problems between its keys and `data.train`, one line each, without the section's name."""
        problems, unlearning = [], train == "forget"
        if self.forget != "ce" and not unlearning:
            problems.append(
                f"forget: {self.forget} unlearns the forget set, but data.train={train}; want loss.forget=ce"
            )
        if self.forget == "ce" and (self.on, self.preserve, self.retain) != ("all", "none", "none"):
            problems.append(
                "forget: ce is finetuning on whole answers; want loss.on=all loss.preserve=none loss.retain=none"
            )
        if self.task_vector is not None and self.forget != "ce":
            problems.append(f"task_vector: turns finetuning round, but loss.forget={self.forget}; want ce, or null")
        if self.forget == "whp" and self.whp is None:
            problems.append("whp: forget=whp lowers logits by this factor, got null; want a number, as loss.whp=1")
        if self.whp is not None and self.forget not in ("ce", "whp"):
            problems.append(f"whp: lowers the logits of forget=whp or ce, but loss.forget={self.forget}; want null")
        if self.whp is not None and self.task_vector is not None:
            problems.append("whp: and loss.task_vector turn the same finetuning round; want null for one of them")
        if self.retain != "none" and not unlearning:
            problems.append(f"retain: pairs forget with retain samples, but data.train={train}; want none")
        if self.dual.limit is not None and self.retain == "none" and self.forget != "ce":
            problems.append("dual.limit: moves the weight of the retain term, but loss.retain=none; want another")
        return problems
