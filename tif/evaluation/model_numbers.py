"""A model on all the benchmarks that are asked for: what `python -m tif.evaluate model.path=...` does."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch

from tif.config.errors import ConfigError, collect_problems
from tif.config.evaluate_command import Evaluate
from tif.data.benchmarks import read_evaluation_sets
from tif.data.samples import Benchmark, Sample
from tif.evaluation import evaluate as evaluation
from tif.evaluation import fluency_classifier as gibberish
from tif.evaluation import gradient_norms as gradients
from tif.evaluation import lm_eval_tasks as ability
from tif.evaluation import model_records as checkpoint
from tif.evaluation import muse_prompts as tasks
from tif.evaluation.model_records import Checkpoint, kept
from tif.metrics import muse
from tif.metrics.results import Comparison, Extras, Rules, compute_results
from tif.models import load as models
from tif.records import files as records
from tif.utils.hashing import hash_json, list_model_files

USER_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass
class Plan:
    """What was checked before weights load.

    Attributes:
        main: the model.
        others: the models it is compared with, by the key that names them.
        benchmarks: evaluation sets by name.
        retain: the retain model's records, where they were given.
    """

    main: Checkpoint
    others: dict[str, Checkpoint]
    benchmarks: dict[str, Benchmark]
    retain: records.Evaluation | None


def evaluate_model(cfg: Evaluate) -> dict[str, Any]:
    """Evaluate the model on all benchmarks: the content of `--json`.

    Raises:
        ConfigError: Before weights load, with one line for each problem.
    """
    _quiet()
    planned, found = plan(cfg), dict[str, Any]()
    rules = Rules(cfg.draws, cfg.seed, cfg.allow_mismatch)
    where = f"retain_model: {cfg.retain_model}" if cfg.retain_model else f"retain_records: {cfg.retain_records}"
    for name, benchmark in planned.benchmarks.items():
        ours, folder = planned.main.evaluation(name, benchmark, planned.others.get("original"))
        retain, retain_model = planned.retain, planned.others.get("retain_model")
        if retain_model:
            retain = retain_model.evaluation(name, benchmark)[0]
        extras = _extras(planned, name, ours, folder)
        comparison = Comparison(ours, retain, str(folder), where)
        found[name] = compute_results(comparison, rules, extras) | {"folder": str(folder)}
    if lm_tasks := cfg.eval.lm_eval_tasks():
        found["lm-eval"] = _general_ability(planned.main, lm_tasks)
    return {"model": str(cfg.model.path), "benchmarks": found}


def plan(cfg: Evaluate) -> Plan:
    """Read the data and check every path; nothing is written and no weights load.

    Raises:
        ConfigError: With all problems found, one a line.
    """
    problems: list[str] = []
    lm_tasks = cfg.eval.lm_eval_tasks()
    paths = {
        "model.path": cfg.model.path,
        "retain_model": cfg.retain_model,
        "original": cfg.original,
        "membership.reference": cfg.membership.reference,
    }
    models_found: dict[str, Checkpoint] = {}
    benchmarks: dict[str, Benchmark] = {}
    retain = None
    with collect_problems(problems, USER_ERRORS, "device: "):
        where = checkpoint.device(cfg.device)
    for setting, path in paths.items():
        if path is not None and not problems:
            with collect_problems(problems, USER_ERRORS, rename_key=("model.path", setting)):
                own = dataclasses.replace(cfg.model, path=path)
                models.check_model(own)
                same = (other for other in models_found.values() if other.cfg == own)
                models_found[setting] = next(same, None) or Checkpoint(own, cfg, where)
                _ = models_found[setting].encoder
    if "original" in models_found:
        sizes = [models_found[setting].config.vocab_size for setting in ("original", "model.path")]
        if sizes[0] != sizes[1]:
            problems.append(f"original: {cfg.original}: its vocabulary has {sizes[0]} tokens, the model's {sizes[1]}")
    for name in cfg.eval.data_benchmarks():
        with collect_problems(problems, USER_ERRORS):
            benchmarks[name] = read_evaluation_sets(name, cfg.eval)
    with collect_problems(problems, USER_ERRORS):
        if lm_tasks:
            ability.check(lm_tasks, cfg.eval.lm_eval.folder)
    with collect_problems(problems, USER_ERRORS, "retain_records: "):
        retain = records.read_evaluation(cfg.retain_records) if cfg.retain_records else None
    with collect_problems(problems, USER_ERRORS):
        gibberish.check(cfg.fluency.classifier)
    if problems:
        raise ConfigError("\n".join(problems))
    return Plan(models_found.pop("model.path"), models_found, benchmarks, retain)


def _extras(planned: Plan, name: str, ours: records.Evaluation, folder: Path) -> Extras:
    """What is computed on request, from disk where it is there."""
    main, benchmark = planned.main, planned.benchmarks[name]
    compared = {key: own for key, own in benchmark.sets.items() if key in muse.COMPARED}
    reference, norms, clean = None, {}, {}
    if compared and "membership.reference" in planned.others:
        part = dataclasses.replace(benchmark, sets=compared, tasks={key: benchmark.tasks[key] for key in compared})
        reference = planned.others["membership.reference"].evaluation(f"{name}-membership", part)[0]
    if compared and main.settings.membership.gradient_norm:
        norms = kept(folder / "gradient_norms.json", lambda: _gradient_norms(main, benchmark, compared))
    if path := main.settings.fluency.classifier:
        file = folder / f"clean-{hash_json([path, list_model_files(path)])}.json"
        clean = kept(file, lambda: _clean(ours, path, main.device))
    return Extras(reference, norms, clean)


def _gradient_norms(
    main: Checkpoint, benchmark: Benchmark, compared: dict[str, tuple[Sample, ...]]
) -> dict[str, list[float]]:
    used = evaluation.cut(compared, main.settings.eval, benchmark.tasks)
    asked = {key: tasks.ask(main.encoder, own, benchmark.tasks[key], main.context) for key, own in used.items()}
    return {
        key: gradients.gradient_norms(main.model, [one.texts[0] for one in own], main.encoder.pad_id)
        for key, own in asked.items()
    }


def _clean(ours: records.Evaluation, path: str, device: torch.device) -> dict[str, list[float]]:
    said = {key: [record.generated for record in own.records] for key, own in ours.sets.items()}
    spoken = {key: [text for text in own if text is not None] for key, own in said.items() if None not in own}
    shares = iter(gibberish.clean_probabilities([text for own in spoken.values() for text in own], path, device))
    return {key: [next(shares) for _ in own] for key, own in spoken.items()}


def _general_ability(main: Checkpoint, names: list[str]) -> dict[str, Any]:
    own = main.settings.eval.lm_eval
    path = main.folder / f"lm-eval-{hash_json([names, own.folder, own.limit])}.json"
    found = kept(path, lambda: ability.run(main.model, main.encoder.tokenizer, names, own))
    return {
        "metrics": {key: value for key, (value, _) in found.items()},
        "intervals": {key: None if e is None else (v - 1.96 * e, v + 1.96 * e) for key, (v, e) in found.items()},
        "protocol": {"name": "lm-eval", "tasks": names, "limit": own.limit},
        "file": str(path),
    }


def _quiet() -> None:
    """No bars, no tips and no warnings of transformers' own that no user can act on."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", ".*past_key_values.*is deprecated.*")  # transformers < 5.24 knows no other name
