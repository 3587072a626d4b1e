"""Few bits: the weights are rounded to 4 or 8 bits, and the model is evaluated again.

Unlearning with a small learning rate moves weights by less than a step of the coarse grid: rounding
may put them back where the target model's are. Measured are all metrics of the evaluation, forget
quality against the retain model in as many bits, and of the forget set, question by question: facts
stated, extraction strength, probability and ROUGE-L.

Source: Zhang et al., "Catastrophic failure of LLM unlearning via quantization" (arXiv 2410.16454),
who round to nearest and with GPTQ and AWQ; here bitsandbytes' nf4 (double quantised) and int8. The
rounded weights are turned back into numbers of `model.dtype`: for nf4 that computes the same and is
faster on a CPU. bitsandbytes' int8 also rounds activations, by all tokens of a batch together; here
only the weights are rounded, so that a score does not depend on other texts.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from tif.audit.answers import FACTS, measure_answers
from tif.audit.attack import AttackInputs, AttackResult, Subject, attack
from tif.audit.keys import AuditKeys
from tif.config.keys import key
from tif.evaluation.evaluate import evaluate
from tif.metrics import overall, tofu
from tif.models.load import load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BITS = ("int8", "nf4")
FULL = "as it is"
FEW_BITS = ("Params4bit", "Int8Params")


@dataclasses.dataclass
class Quantise:
    """Weights in few bits."""

    bits: list[str] = key(list(BITS), f"of {', '.join(BITS)} (bitsandbytes)")


def find_problems(settings: AuditKeys) -> list[str]:
    """Return what is wrong with the keys, one line each."""
    unknown = [name for name in settings.keys_of(Quantise).bits if name not in BITS]
    if not unknown:
        return []
    return [f"quantise.bits: want some of {', '.join(BITS)}, got {', '.join(unknown)}"]


def compare_forget_quality(outcomes: Mapping[str, AttackResult]) -> dict[str, dict[str, float]]:
    """Return forget quality against the retain model in as many bits, by number and role."""
    from scipy.stats import ks_2samp  # takes long to import: not where keys alone are read

    qualities = {}
    for name, retain_ratios in outcomes["retain"].vectors.items():
        by_role = {}
        for role in ("target", "unlearned"):
            by_role[role] = float(ks_2samp(outcomes[role].vectors[name], retain_ratios).pvalue)
        qualities[f"{name}, forget/quality"] = by_role
    return qualities


def headline(settings: AuditKeys) -> str:
    """Return the measure of the verdict: facts stated in the fewest bits."""
    return f"{settings.keys_of(Quantise).bits[-1]}, {FACTS}"


@attack(
    "quantise", keys=Quantise, headline=headline, compare=compare_forget_quality,
    find_problems=find_problems,
    action=lambda settings: f"rounding to {settings.keys_of(Quantise).bits[-1]}",
)  # fmt: skip
def run(subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return the metrics of the model as it is and in few bits."""
    measures: dict[str, list[float | None]] = {}
    numbers: dict[str, float | None] = {}
    ratios: dict[str, list[float]] = {}
    samples = inputs.forget_questions()
    sets = {**inputs.benchmark.sets, "forget": samples}
    for name in (FULL, *inputs.settings.keys_of(Quantise).bits):
        model = subject.model if name == FULL else load_rounded(subject, name)
        setup = inputs.setup(subject, model)
        evaluation = evaluate(model, sets, setup, str(subject.section.path))
        for title, column in measure_answers(evaluation, samples).items():
            measures[f"{name}, {title}"] = column
        ratios[name] = tofu.forget_ratios(evaluation).tolist()
        for metric, value in overall.aggregate(evaluation).items():
            numbers[f"{name}, {metric}"] = value
    ids = [sample.id for sample in samples]
    return AttackResult(ids, measures, numbers=numbers, vectors=ratios)


def load_rounded(subject: Subject, bits: str) -> "PreTrainedModel":
    """Return the model with the numbers that its weights in nf4 or int8 stand for."""
    from peft.utils.integrations import dequantize_bnb_weight
    from transformers.pytorch_utils import Conv1D

    rounded = load_pretrained(dataclasses.replace(subject.section, quantize=bits), subject.device)
    model = subject.load()
    for name, weight in rounded.named_parameters():
        if type(weight).__name__ not in FEW_BITS:
            continue
        layer, plain = rounded.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
        value = dequantize_bnb_weight(weight, getattr(layer, "state", None))
        if isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D):
            value = value.T  # bitsandbytes keeps a Linear, the other way round
        with torch.no_grad():
            plain.copy_(value)
    return model
