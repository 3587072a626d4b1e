"""Relearning: a little finetuning; does the rest of the forget set come back with it?

The model is finetuned, each time from where it stands, on a few forget samples, on retain samples
and on unrelated text. Measured are the answers to the *other* forget samples, which nothing of this
shows: facts stated, extraction strength, probability and ROUGE-L after 0, a quarter, half and all
of the steps. The number is the area under a question's curve over the steps, divided by the steps.
The retain model under the same budget shows what the style of the answers alone gives, the target
model what is there to be had.

Source: Hu et al., "Jogging the memory of unlearned models" (arXiv 2406.13356); relearning on a part
of the forget set, on retain data and on unrelated text as in Lynch et al. (arXiv 2402.16835).
AdamW without decay, constant learning rate, gradient clipped to norm 1, in float32.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tif.audit.answers import FACTS, measure_answers
from tif.audit.attack import AttackInputs, AttackResult, Subject, attack
from tif.audit.keys import AuditKeys
from tif.config.evaluation import MaxSamples
from tif.config.keys import key
from tif.data.encoding import collate
from tif.data.samples import Sample
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.losses.likelihood import cross_entropy
from tif.losses.terms import Inputs
from tif.scoring.token_scores import score_tokens
from tif.utils.terminal import progress_bar
from tif.utils.torch_state import seeded, set_training_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Column = list[float | None]


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


def find_problems(settings: AuditKeys) -> list[str]:
    """Return what is wrong with the keys, one line each."""
    keys, problems = settings.keys_of(Relearn), []
    if not all(0 < share < 1 for share in keys.shares):
        problems.append(f"relearn.shares: want shares between 0 and 1, got {keys.shares}")
    unknown = [name for name in keys.others if name not in ("retain", "unrelated")]
    if unknown:
        problems.append(f"relearn.others: want retain, unrelated, got {', '.join(unknown)}")
    if not keys.shares and not keys.others:
        problems.append("relearn.shares: want something to learn, got nothing")
    return problems


def name_share(share: float) -> str:
    """Return the name of relearning on a share of the forget set."""
    return f"{100 * share:g} % of the forget set"


def headline(settings: AuditKeys) -> str:
    """Return the measure of the verdict: facts stated while the middle share is learned."""
    keys = settings.keys_of(Relearn)
    shares = sorted(keys.shares)
    name = name_share(shares[len(shares) // 2]) if shares else keys.others[0]
    return f"{name}, {FACTS}"


@attack(
    "relearn", keys=Relearn, headline=headline, axis="steps", find_problems=find_problems,
    action=lambda settings: "relearning " + headline(settings).partition(",")[0],
)  # fmt: skip
def run(subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return the areas of the other forget samples' curves, by what was learned."""
    settings = inputs.settings.keys_of(Relearn)
    lessons, others = plan_lessons(inputs)
    start = subject.load(dtype="float32")
    subject.unload()
    setup = inputs.setup(subject, start)
    before = _measure(start, others, setup)
    measures: dict[str, list[float | None]] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, lesson in lessons.items():
        points = {0: before}
        for step, model in learn(start, lesson, setup, settings, inputs.settings.seed):
            if step in (settings.steps // 4, settings.steps // 2, settings.steps):
                points[step] = _measure(model, others, setup)
        for title in before:
            columns = {step: values[title] for step, values in points.items()}
            measures[f"{name}, {title}"] = area_of_curves(columns)
            curves[f"{name}, {title}"] = mean_curve(columns)
    return AttackResult([sample.id for sample in others], measures, curves)


def plan_lessons(inputs: AttackInputs) -> tuple[dict[str, tuple[Sample, ...]], tuple[Sample, ...]]:
    """Return what is learned, by name, and the forget samples that are measured.

    The samples of a smaller share are among those of a larger one, and none of them is measured.
    """
    settings, questions = inputs.settings.keys_of(Relearn), inputs.forget_questions()
    order = np.random.default_rng([inputs.settings.seed, 1]).permutation(len(questions))
    shuffled = [questions[i] for i in order]
    lessons: dict[str, tuple[Sample, ...]] = {}
    largest = 0
    for share in sorted(settings.shares):
        size = min(max(round(share * len(questions)), 1), len(questions) - 1)
        largest = max(largest, size)
        lessons[name_share(share)] = tuple(shuffled[:size])
    sets = inputs.benchmark.sets
    unrelated = (*sets.get("world_facts", ()), *sets.get("real_authors", ()))
    pools = {"retain": inputs.benchmark.retain, "unrelated": unrelated}
    for name in settings.others:
        if pools[name]:
            lessons[name] = pools[name]
    return lessons, tuple(shuffled[largest:])


def learn(
    start: "PreTrainedModel", lesson: Sequence[Sample], setup: EvaluationSetup, settings: Relearn,
    seed: int,
) -> "Iterator[tuple[int, PreTrainedModel]]":  # fmt: skip
    """Finetune a copy of a model; yield (steps done, the model) after each step.

    Every process does the same steps. Batches are drawn from the seed.
    """
    model = copy.deepcopy(start)
    set_training_mode(model)
    device = next(model.parameters()).device
    encoded = [setup.encoder.encode(sample) for sample in lesson]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.0)
    batches = draw_batches(len(encoded), settings, seed)
    with progress_bar("relearning", settings.steps) as bar:
        for step, indices in enumerate(batches, 1):
            batch = collate([encoded[i] for i in indices], indices, setup.encoder.pad_id).to(device)
            with seeded(seed + step), torch.enable_grad():  # dropout
                scores = score_tokens(model, batch, setup.batching)
                loss = cross_entropy(Inputs(scores, batch.answer[:, 1:].float()))
                optimizer.zero_grad()
                loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            bar.advance()
            yield step, model


def draw_batches(size: int, settings: Relearn, seed: int) -> list[list[int]]:
    """Return the samples of each step: the lesson in a new order each time it is through."""
    generator = np.random.default_rng([seed, 2])
    per_step = min(settings.batch_size, size)
    stream: list[int] = []
    while len(stream) < per_step * settings.steps:
        stream += generator.permutation(size).tolist()
    starts = range(0, per_step * settings.steps, per_step)
    return [stream[first : first + per_step] for first in starts]


def area_of_curves(columns: Mapping[int, Column]) -> Column:
    """Return the area under each question's curve over the steps, divided by the steps.

    `columns`: by number of steps, from 0 on, (N,) values; a question has none at any step, or one
    at each.
    """
    steps = sorted(columns)
    areas: Column = []
    for curve in zip(*(columns[step] for step in steps), strict=True):
        values = [value for value in curve if value is not None]
        is_complete = len(values) == len(steps)
        areas.append(float(np.trapezoid(values, steps)) / steps[-1] if is_complete else None)
    return areas


def mean_curve(columns: Mapping[int, Column]) -> list[tuple[float, float]]:
    """Return (steps, mean over the questions that have a value)."""
    points = []
    for step in sorted(columns):
        values = [value for value in columns[step] if value is not None]
        if values:
            points.append((float(step), sum(values) / len(values)))
    return points


def _measure(
    model: "PreTrainedModel", samples: Sequence[Sample], setup: EvaluationSetup
) -> dict[str, Column]:
    """Return each measure of the samples' answers; nothing but the true answer is scored."""
    bare: Any = {"paraphrased_answer": None, "perturbed_answers": ()}
    plain = [dataclasses.replace(sample, **bare) for sample in samples]
    limits = MaxSamples(forget=len(samples))
    rules = dataclasses.replace(setup.rules, paraphrased_questions=False, max_samples=limits)
    setup = EvaluationSetup(setup.encoder, rules, setup.batching)
    return measure_answers(evaluate(model, {"forget": plain}, setup, "relearned"), samples)
