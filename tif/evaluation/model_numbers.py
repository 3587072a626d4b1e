"""Evaluate a model on all benchmarks that are named, against the models that it is compared with.

Called by tif/evaluate.py: this is `python -m tif.evaluate model.path=...`. Everything is checked before
weights load; what is on disk already is read instead of computed.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tif.config.errors import ConfigError, collect_problems
from tif.config.evaluate_command import Evaluate
from tif.data.benchmarks import read_evaluation_sets
from tif.data.samples import Benchmark, Sample
from tif.evaluation import lm_eval_tasks
from tif.evaluation.comparison import compared_sets, find_expected_mismatch
from tif.evaluation.fluency_classifier import check_classifier, clean_probabilities
from tif.evaluation.gradient_norms import gradient_norms
from tif.evaluation.model_records import RecordedModel, read_or_compute, select_device
from tif.evaluation.muse_prompts import ask_task
from tif.evaluation.questions import select_samples
from tif.metrics import muse
from tif.metrics.results import Comparison, Extras, Rules, compute_results
from tif.models.load import check_model
from tif.records import files
from tif.records.types import Evaluation
from tif.utils.hashing import hash_json, list_model_files

USER_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass
class Plan:
    """What is evaluated, checked before weights load.

    Attributes:
        settings: the keys of the command.
        models: by the key that names them: model.path, and those it is compared with.
        benchmarks: evaluation sets, by the benchmark's name.
        retain: the retain model's records, where they were given.
    """

    settings: Evaluate
    models: dict[str, RecordedModel] = dataclasses.field(default_factory=dict)
    benchmarks: dict[str, Benchmark] = dataclasses.field(default_factory=dict)
    retain: Evaluation | None = None

    @property
    def model(self) -> RecordedModel:
        """Return the model that is evaluated."""
        return self.models["model.path"]


def evaluate_model(settings: Evaluate) -> dict[str, Any]:
    """Evaluate the model on all benchmarks and return the content of `--json`.

    Raises:
        ConfigError: Before weights load, with one line for each problem.
    """
    _silence_transformers()
    plan = plan_evaluation(settings)
    results = {}
    for name in plan.benchmarks:
        results[name] = _evaluate_benchmark(plan, name)
    tasks = settings.eval.lm_eval_tasks()
    if tasks:
        results["lm-eval"] = _run_lm_eval(plan.model, tasks)
    return {"model": str(settings.model.path), "benchmarks": results}


def plan_evaluation(settings: Evaluate) -> Plan:
    """Read the data and check every path; nothing is written and no weights load.

    Raises:
        ConfigError: With all problems, one a line.
    """
    problems: list[str] = []
    plan = Plan(settings)
    family = _plan_models(plan, problems)
    for name in settings.eval.data_benchmarks():
        with collect_problems(problems, USER_ERRORS):
            plan.benchmarks[name] = read_evaluation_sets(name, settings.eval)
    tasks = settings.eval.lm_eval_tasks()
    if tasks:
        with collect_problems(problems, USER_ERRORS):
            lm_eval_tasks.check_tasks(tasks, settings.eval.lm_eval.folder)
    with collect_problems(problems, USER_ERRORS, "retain_records: "):
        if settings.retain_records:
            plan.retain = files.read_evaluation(settings.retain_records)
    with collect_problems(problems, USER_ERRORS):
        check_classifier(settings.fluency.classifier)
    if not problems:
        with collect_problems(problems):
            _check_retain_records(plan, family)
    if problems:
        raise ConfigError("\n".join(problems))
    return plan


def _plan_models(plan: Plan, problems: list[str]) -> str | None:
    """Fill the plan's models; return the family of the one that is evaluated."""
    settings = plan.settings
    paths = {
        "model.path": settings.model.path,
        "retain_model": settings.retain_model,
        "original": settings.original,
        "membership.reference": settings.membership.reference,
    }
    family = None
    with collect_problems(problems, USER_ERRORS, "device: "):
        device = select_device(settings.device)
    for key, path in paths.items():
        if path is None or problems:
            continue
        with collect_problems(problems, USER_ERRORS, rename_key=("model.path", key)):
            section = dataclasses.replace(settings.model, path=path)
            model_family = check_model(section)
            family = family or model_family
            model = RecordedModel(section, settings, device)
            for other in plan.models.values():
                if other.section == section:  # loaded once
                    model = other
            plan.models[key] = model
            _ = model.encoder  # raises for a tokenizer that cannot serve
    if "original" in plan.models and not problems:
        sizes = [plan.models[key].config.vocab_size for key in ("original", "model.path")]
        if sizes[0] != sizes[1]:
            problems.append(
                f"original: {settings.original}: its vocabulary has {sizes[0]} tokens, "
                f"the model's {sizes[1]}"
            )
    return family


def _check_retain_records(plan: Plan, family: str | None) -> None:
    """Raise ConfigError if `retain_records` will not compare with what the model is asked."""
    settings = plan.settings
    if plan.retain is None or settings.allow_mismatch:
        return
    for benchmark in plan.benchmarks.values():
        if not all(name in benchmark.sets for name in compared_sets(benchmark)):
            continue
        mismatch = find_expected_mismatch(plan.retain, benchmark, settings.eval, family)
        if mismatch:
            raise ConfigError(
                f"retain_records: {settings.retain_records}: {mismatch}; allow_mismatch=true "
                "computes it all the same"
            )


def _evaluate_benchmark(plan: Plan, name: str) -> dict[str, Any]:
    """Return all numbers of a benchmark with their intervals, and the folder of the records."""
    settings, benchmark = plan.settings, plan.benchmarks[name]
    original = plan.models.get("original")
    evaluation, folder = plan.model.evaluate_benchmark(name, benchmark, original)
    retain, retain_source = plan.retain, f"retain_records: {settings.retain_records}"
    if "retain_model" in plan.models:
        retain, _ = plan.models["retain_model"].evaluate_benchmark(name, benchmark)
        retain_source = f"retain_model: {settings.retain_model}"
    comparison = Comparison(evaluation, retain, str(folder), retain_source)
    rules = Rules(settings.draws, settings.seed, settings.allow_mismatch)
    extras = _compute_extras(plan, name, evaluation, folder)
    return compute_results(comparison, rules, extras) | {"folder": str(folder)}


def _compute_extras(plan: Plan, name: str, evaluation: Evaluation, folder: Path) -> Extras:
    """Return what the records do not hold and the keys ask for."""
    settings, benchmark = plan.settings, plan.benchmarks[name]
    texts = {key: benchmark.sets[key] for key in muse.COMPARED if key in benchmark.sets}
    reference, norms, clean = None, {}, {}
    if texts and "membership.reference" in plan.models:
        tasks = {key: benchmark.tasks[key] for key in texts}
        part = dataclasses.replace(benchmark, sets=texts, tasks=tasks)
        model = plan.models["membership.reference"]
        reference, _ = model.evaluate_benchmark(f"{name}-membership", part)
    if texts and settings.membership.gradient_norm:
        norms = read_or_compute(
            folder / "gradient_norms.json", lambda: _gradient_norms(plan, benchmark, texts)
        )
    classifier = settings.fluency.classifier
    if classifier:
        file = folder / f"clean-{hash_json([classifier, list_model_files(classifier)])}.json"
        device = plan.model.device
        clean = read_or_compute(file, lambda: _classify(evaluation, classifier, device))
    return Extras(reference, norms, clean)


def _gradient_norms(
    plan: Plan, benchmark: Benchmark, texts: Mapping[str, Sequence[Sample]]
) -> dict[str, list[float]]:
    """Return the gradient norm of each text, by set."""
    model, encoder = plan.model, plan.model.encoder
    selected = select_samples(texts, plan.settings.eval, benchmark.tasks)
    norms = {}
    for name, samples in selected.items():
        questions = ask_task(encoder, samples, benchmark.tasks[name], model.context)
        encoded = [question.texts[0] for question in questions]
        norms[name] = gradient_norms(model.model, encoded, encoder.pad_id)
    return norms


def _classify(evaluation: Evaluation, path: str, device: torch.device) -> dict[str, list[float]]:
    """Return the classifier's probability for each generation, of the sets that have them all."""
    generations: dict[str, list[str]] = {}
    for name, records in evaluation.sets.items():
        texts = [record.generated for record in records.records if record.generated is not None]
        if len(texts) == len(records.records):
            generations[name] = texts
    all_texts = []
    for texts in generations.values():
        all_texts += texts
    probabilities = clean_probabilities(all_texts, path, device)
    clean, start = {}, 0
    for name, texts in generations.items():
        clean[name] = probabilities[start : start + len(texts)]
        start += len(texts)
    return clean


def _run_lm_eval(model: RecordedModel, tasks: list[str]) -> dict[str, Any]:
    """Return the metrics of lm-eval's tasks with intervals of 1.96 standard errors."""
    settings = model.settings.eval.lm_eval
    key = hash_json([tasks, settings.folder, settings.limit])
    path = model.folder / f"lm-eval-{key}.json"
    scores = read_or_compute(
        path,
        lambda: lm_eval_tasks.run_tasks(model.model, model.encoder.tokenizer, tasks, settings),
    )
    metrics: dict[str, float] = {}
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, (value, error) in scores.items():
        metrics[name] = value
        intervals[name] = None
        if error is not None:
            intervals[name] = (value - 1.96 * error, value + 1.96 * error)
    return {
        "metrics": metrics,
        "intervals": intervals,
        "protocol": {"name": "lm-eval", "tasks": tasks, "limit": settings.limit},
        "file": str(path),
    }


def _silence_transformers() -> None:
    """Turn off transformers' bars, tips and the warnings that no user can act on."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # The other name of this argument is unknown to transformers before 5.24.
    warnings.filterwarnings("ignore", ".*past_key_values.*is deprecated.*")
