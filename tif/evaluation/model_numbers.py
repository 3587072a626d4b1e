"""Evaluate a model on all benchmarks that are named, against the models that it is compared with.

This is `tif evaluate model.path=...`. Everything is checked before weights load; what is on disk
already is read instead of computed.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch

from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError, collect_problems
from tif.data.benchmarks import read_evaluation_sets
from tif.data.samples import Benchmark
from tif.evaluation import lm_eval_tasks
from tif.evaluation.evaluate import build_questions, describe_protocol
from tif.evaluation.fluency_classifier import check_classifier, classify_generations
from tif.evaluation.lm_eval_tasks import confidence_interval
from tif.evaluation.model_on_demand import RecordedModel, read_or_compute
from tif.evaluation.prompt_format import use_template_of_run
from tif.evaluation.questions import compared_sets, find_expected_mismatch, select_samples
from tif.evaluation.token_stats import gradient_norms
from tif.metrics import membership
from tif.metrics.results import NumbersRequest, compute_results
from tif.probes.check_model import check_model
from tif.probes.small_copy import RowSettings
from tif.records import files
from tif.records.types import Evaluation
from tif.utils import distributed
from tif.utils.hashing import hash_json, list_model_files

USER_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass
class EvaluationPlan:
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


def evaluate_model(settings: Evaluate) -> dict[str, Any]:
    """Evaluate the model on all benchmarks and return the content of `--json`.

    Raises:
        ConfigError: Before weights load, with one line for each problem.
    """
    _silence_transformers()
    settings = use_template_of_run(settings)
    plan = plan_evaluation(settings)
    results = {name: _evaluate_benchmark(plan, name) for name in plan.benchmarks}
    tasks = settings.eval.lm_eval_tasks()
    if tasks:
        results["lm-eval"] = _run_lm_eval(plan.models["model.path"], tasks)
    return {"model": str(settings.model.path), "benchmarks": results}


def plan_evaluation(settings: Evaluate) -> EvaluationPlan:
    """Read the data and check every path; nothing is written and no weights load.

    Raises:
        ConfigError: With all problems, one a line.
    """
    problems: list[str] = []
    plan = EvaluationPlan(settings)
    family = _plan_models(plan, problems)
    for name in settings.eval.data_benchmarks():
        with collect_problems(problems, USER_ERRORS):
            plan.benchmarks[name] = read_evaluation_sets(name, settings.eval)
    tasks = settings.eval.lm_eval_tasks()
    if tasks:
        with collect_problems(problems, USER_ERRORS):
            lm_eval_tasks.check_tasks(tasks, settings.eval.lm_eval.folder)
    if settings.retain_records:
        with collect_problems(problems, USER_ERRORS, "retain_records: "):
            plan.retain = files.read_evaluation(settings.retain_records)
    classifier = settings.fluency.classifier
    if classifier:
        with collect_problems(problems, USER_ERRORS):
            check_classifier(classifier)
    if not problems and plan.retain and not settings.allow_mismatch:
        problems += _find_mismatches(plan, plan.retain, family)
    if problems:
        raise ConfigError("\n".join(problems))
    return plan


def _plan_models(plan: EvaluationPlan, problems: list[str]) -> str | None:
    """Fill the plan's models; return the family of the one that is evaluated."""
    settings, models = plan.settings, plan.models
    paths = {
        "model.path": settings.model.path,
        "retain_model": settings.retain_model,
        "original": settings.original,
        "membership.reference": settings.membership.reference,
    }
    family = None
    with collect_problems(problems, USER_ERRORS, "device: "):
        is_auto = settings.device == "auto"
        device = distributed.select_device("auto") if is_auto else torch.device(settings.device)
    for key, path in paths.items():
        if path is None or problems:
            continue
        with collect_problems(problems, USER_ERRORS, rename_key=("model.path", key)):
            section = dataclasses.replace(settings.model, path=path)
            rows = RowSettings(settings.batching, device, "batching")
            family_of_key = check_model(section, rows=rows)
            family = family or family_of_key
            same = [model for model in models.values() if model.section == section]
            models[key] = same[0] if same else RecordedModel(
                section, settings.prompts, device, settings)
            _ = models[key].encoder  # raises for a tokenizer that cannot serve
    if "original" in models and not problems:
        size, model_size = (models[key].config.vocab_size for key in ("original", "model.path"))
        if size != model_size:
            problem = f"its vocabulary has {size} tokens, the model's {model_size}"
            problems.append(f"original: {settings.original}: {problem}")
    return family


def _find_mismatches(plan: EvaluationPlan, retain: Evaluation, family: str | None) -> list[str]:
    """Return why `retain_records` will not compare with what the model is asked."""
    problems = []
    for benchmark in plan.benchmarks.values():
        if all(name in benchmark.sets for name in compared_sets(benchmark)):
            model, rules = plan.models["model.path"], plan.settings.eval
            protocol = describe_protocol(rules, model.encoder, benchmark.tasks, model.context)
            mismatch = find_expected_mismatch(retain, benchmark, rules, family, protocol)
            if mismatch:
                source = f"retain_records: {plan.settings.retain_records}"
                advice = "allow_mismatch=true computes it all the same"
                problems.append(f"{source}: {mismatch}; {advice}")
    return problems


def _evaluate_benchmark(plan: EvaluationPlan, name: str) -> dict[str, Any]:
    """Return all numbers of a benchmark with their intervals, and the folder of the records."""
    settings, benchmark, models = plan.settings, plan.benchmarks[name], plan.models
    model = models["model.path"]
    evaluation, folder = model.evaluate_benchmark(name, benchmark, models.get("original"))
    retain, retain_source = plan.retain, f"retain_records: {settings.retain_records}"
    if "retain_model" in models:
        retain, _ = models["retain_model"].evaluate_benchmark(name, benchmark)
        retain_source = f"retain_model: {settings.retain_model}"
    rules = settings.draws, settings.seed, settings.allow_mismatch
    extras = _measure_extras(plan, name, evaluation, folder)
    request = NumbersRequest(evaluation, retain, str(folder), retain_source, *rules, **extras)
    return compute_results(request) | {"folder": str(folder)}


def _measure_extras(
    plan: EvaluationPlan, name: str, evaluation: Evaluation, folder: Path
) -> dict[str, Any]:
    """Return what the records do not hold and the keys ask for, by field of `NumbersRequest`."""
    settings, benchmark, model = plan.settings, plan.benchmarks[name], plan.models["model.path"]
    names = membership.compared_sets(evaluation) or ()
    texts = {key: benchmark.sets[key] for key in names}
    tasks = {key: benchmark.tasks[key] for key in names if key in benchmark.tasks}
    part = dataclasses.replace(benchmark, sets=texts, tasks=tasks)
    extras: dict[str, Any] = {}
    if texts and "membership.reference" in plan.models:
        reference = plan.models["membership.reference"]
        extras["reference"], _ = reference.evaluate_benchmark(f"{name}-membership", part)
    if texts and settings.membership.gradient_norm:
        file = folder / "gradient_norms.json"
        extras["gradient_norms"] = read_or_compute(file, lambda: _measure_gradients(model, part))
    classifier = settings.fluency.classifier
    if classifier:
        file = folder / f"clean-{hash_json([classifier, list_model_files(classifier)])}.json"
        extras["clean"] = read_or_compute(
            file, lambda: classify_generations(evaluation, classifier, model.device)
        )
    return extras


def _measure_gradients(model: RecordedModel, part: Benchmark) -> dict[str, list[float]]:
    """Return the gradient norms of the texts of a benchmark, by set."""
    norms, setup = {}, model.setup(part)
    for name, samples in select_samples(part.sets, setup.rules, part.tasks).items():
        questions = build_questions(setup, name, samples, model.context)
        texts = [question.texts[0] for question in questions]
        norms[name] = gradient_norms(model.model, texts, setup.encoder.pad_id)
    return norms


def _run_lm_eval(model: RecordedModel, tasks: list[str]) -> dict[str, Any]:
    """Return the metrics of lm-eval's tasks with intervals of 1.96 standard errors."""
    settings = model.settings.eval.lm_eval
    key = hash_json([tasks, settings.folder, settings.limit])
    path, tokenizer = model.folder / f"lm-eval-{key}.json", model.encoder.tokenizer
    scores = read_or_compute(
        path, lambda: lm_eval_tasks.run_tasks(model.model, tokenizer, tasks, settings)
    )
    return {
        "metrics": {name: value for name, (value, _) in scores.items()},
        "intervals": {name: confidence_interval(name, *both) for name, both in scores.items()},
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
