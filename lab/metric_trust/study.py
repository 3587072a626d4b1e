"""Make the pools of models, measure every model, and write the table of metrics.

Called by `python -m lab.metric_trust`. Several models are made at a time, each in a process of its
own. What was measured of a model is kept: a killed command goes on.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lab.metric_trust import pools, trust
from lab.metric_trust.pools import PoolModel
from lab.metric_trust.settings import MetricTrust
from tif.audit import answers
from tif.audit.attacks import depth
from tif.audit.attacks.depth import Depth
from tif.audit.facts import list_facts
from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.schema import Config
from tif.data.benchmarks import read_benchmark
from tif.data.encoding import Encoder
from tif.data.samples import Benchmark, Sample
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.metrics import overall
from tif.models.load import load_policy, load_tokenizer
from tif.records import files
from tif.records.types import Evaluation
from tif.training.checkpoints import Preempted
from tif.utils import interrupts
from tif.utils.files import write_text
from tif.utils.terminal import progress_bar, quiet_libraries, silence

# Metrics by stable name, and whether a model that knows the forget set has more of it.
METRICS = {
    "forget/probability": True, "forget/rouge1": True, "forget/rougeL": True,
    "forget/exact_memorization": True, "forget/extraction_strength": True,
    "forget/truth_ratio": False, "forget/quality": False, "forget/retain_distance": True,
    answers.FACTS: True,
    "forget_paraphrased/probability": True, "forget_paraphrased/rougeL": True,
    "membership/loss": True, "membership/zlib": True, "membership/min_k": True,
    "membership/min_k_plus_plus": True, "depth": True, "logit_lens": True,
}  # fmt: skip
UTILITY = "utility/model"
BEFORE, RELEARNED, QUANTISED = "", "-relearned", "-nf4"
FILE = "metrics.json"


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """Trust in a metric, see trust.py. None where no model has a value.

    `overall` is the harmonic mean of faithfulness and robustness.
    """

    metric: str
    faithfulness: float | None
    relearning: float | None
    quantisation: float | None
    robustness: float | None
    overall: float | None
    symmetric_relearning: float | None
    symmetric_quantisation: float | None
    symmetric_robustness: float | None


def check_settings(settings: MetricTrust) -> None:
    """Raise ConfigError, before anything is made, if a configuration of the pools is wrong."""
    cfg = pools.read_config(settings)
    if cfg.data.benchmark != "fictitious":
        raise ConfigError(f"config: {settings.config} is about {cfg.data.benchmark}; the pools "
            "need data.benchmark=fictitious")
    problems: list[str] = []
    for model in pools.list_models(settings):
        if model.pool == "unlearned":
            with collect_problems(problems, (ConfigError,), f"methods: {model.form}: "):
                config.load(pools.list_words(settings, model))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def examine_metrics(settings: MetricTrust) -> dict[str, Any]:
    """Make and measure all models; return the content of metrics.json, which is written."""
    models = pools.list_models(settings)
    target, retain = pools.target_name(settings), pools.retain_name(settings)
    _run_tasks(settings, "base model", [("base", pools.BASE)])
    _run_tasks(settings, "target and retain model", [("make", target), ("make", retain)])
    _run_tasks(settings, "the retain model's records", [("measure", retain)])
    _run_tasks(settings, "the target model's utility", [("measure", target)])
    _run_tasks(settings, "models", [("all", model.name) for model in models])
    content = summarize_metrics(settings, models)
    write_text(Path(settings.out) / FILE, json.dumps(content, indent=1) + "\n")
    return content


def _run_tasks(
    settings: MetricTrust, title: str, tasks: Sequence[tuple[str, str]]
) -> None:
    """Do the tasks, several at a time, each worker with its share of the cores."""
    threads = max(1, torch.get_num_threads() // settings.jobs)  # as OMP_NUM_THREADS says
    context = multiprocessing.get_context("spawn")
    with (
        interrupts.following_children(),
        progress_bar(title, len(tasks)) as bar,
        concurrent.futures.ProcessPoolExecutor(
            min(settings.jobs, len(tasks)), context, _start_worker, (threads,)
        ) as workers,
    ):
        futures = [workers.submit(do_task_or_end, settings, *task) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            future.result()
            bar.advance()


def _start_worker(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    quiet_libraries()
    silence()


def do_task_or_end(settings: MetricTrust, kind: str, name: str) -> None:
    """Do a task in a worker; a signal ends the worker, which would else begin the next task."""
    try:
        do_task(settings, kind, name)
    except Preempted as stopped:
        os._exit(128 + stopped.signal)


def do_task(settings: MetricTrust, kind: str, name: str) -> None:
    """Make a model ("make"), measure it ("measure"), or both, also after attacks ("all").

    The table reads no attack on an unlearned model that is not useful: none is made.
    """
    if kind == "base":
        pools.make_base(settings)
        return
    model = next(model for model in pools.list_models(settings) if model.name == name)
    if kind == "make":
        pools.make_model(settings, model)
        return
    _measure_once(settings, model, BEFORE)
    is_retain = name == pools.retain_name(settings)
    if kind == "all" and (is_retain or model.pool == "unlearned" and is_useful(settings, name)):
        _measure_once(settings, model, RELEARNED)
        _measure_once(settings, model, QUANTISED)
    if not is_retain and name != pools.target_name(settings):
        pools.drop_model(settings, name)
    pools.drop_model(settings, f"{name}{RELEARNED}")


def _measure_once(settings: MetricTrust, model: PoolModel, suffix: str) -> None:
    """Measure a model, or it after an attack, unless that is done; make it if it is missing."""
    if pools.read_values(settings, f"{model.name}{suffix}") is not None:
        return
    pools.make_model(settings, model)
    measured = model.name
    if suffix == RELEARNED:
        pools.relearn(settings, model.name)
        measured = f"{model.name}{RELEARNED}"
    values = measure_model(settings, measured, "nf4" if suffix == QUANTISED else "none")
    pools.write_values(settings, f"{model.name}{suffix}", values)


def is_useful(settings: MetricTrust, name: str) -> bool:
    """Return whether a measured model has enough of the target model's utility."""
    target = (pools.read_values(settings, pools.target_name(settings)) or {}).get(UTILITY) or 0.0
    utility = (pools.read_values(settings, name) or {}).get(UTILITY) or 0.0
    return utility >= settings.least_utility * target


def measure_model(settings: MetricTrust, name: str, bits: str) -> dict[str, float | None]:
    """Return every metric of a model; utility only where it counts, since it takes the longest."""
    cfg = pools.read_config(settings)
    benchmark = read_benchmark(cfg.data)
    section = _section(settings, cfg, name, bits)
    encoder = Encoder(load_tokenizer(section, ()), cfg.data.prompts)
    model = load_policy(section, encoder.tokenizer, 0, device=torch.device("cpu")).eval()
    is_unlearned = name.startswith("unlearned") and not name.endswith(RELEARNED)
    wants_utility = bits == "none" and (is_unlearned or name == pools.target_name(settings))
    sets = benchmark.sets if wants_utility else {"forget": benchmark.sets["forget"]}
    evaluation = _evaluate(cfg, model, encoder, {**sets, "holdout": benchmark.holdout})
    records = Path(settings.out) / "retain_records"
    if name == pools.retain_name(settings) and bits == "none":
        files.write_evaluation(records, evaluation, {})
    retain = files.read_evaluation(records)
    values = overall.aggregate(evaluation, retain)
    stated = answers.measure_answers(evaluation, benchmark.sets["forget"])[answers.FACTS]
    values[answers.FACTS] = trust.mean_of_known(stated)
    values |= _look_inside(settings, cfg, model, encoder, benchmark)
    return {metric: values.get(metric) for metric in (*METRICS, UTILITY)}


def _section(settings: MetricTrust, cfg: Config, name: str, bits: str) -> Any:
    path = str(pools.model_folder(settings, name))
    return dataclasses.replace(cfg.model, path=path, init={}, quantize=bits)


def _evaluate(
    cfg: Config, model: Any, encoder: Encoder, sets: Mapping[str, Sequence[Sample]]
) -> Evaluation:
    """Return the records of some sets."""
    rules = dataclasses.replace(cfg.eval, paraphrased_questions=True)
    return evaluate(model, sets, EvaluationSetup(encoder, rules, "packed", {}), "pool")


def _look_inside(
    settings: MetricTrust, cfg: Config, model: Any, encoder: Encoder, benchmark: Benchmark
) -> dict[str, float | None]:
    """Return depth and the logit lens's best layer, as the audit's attack measures them."""

    def load(name: str) -> Any:
        section = _section(settings, cfg, name, "none")
        return load_policy(section, encoder.tokenizer, 0, device=model.device).eval()

    target, retain = load(pools.target_name(settings)), load(pools.retain_name(settings))
    samples = [sample for sample in benchmark.forget if list_facts(sample)]
    texts = [depth.encode_facts(encoder, sample) for sample in samples]
    texts = [text for text in texts if any(text.uw[1:])]
    questions = depth.measure_layers(
        model, target, retain, texts, encoder.pad_id, cfg.eval.tokens_per_batch
    )
    threshold = Depth().threshold
    depths = [depth.depth_of(item.retain_lost, item.lost, threshold) for item in questions]
    best = [max(question.probability) for question in questions]
    return {"depth": trust.mean_of_known(depths), "logit_lens": trust.mean_of_known(best)}


def summarize_metrics(settings: MetricTrust, models: Sequence[PoolModel]) -> dict[str, Any]:
    """Return the table of all metrics, and how many models stand behind it."""

    def read(name: str, suffix: str = BEFORE) -> Mapping[str, float | None]:
        return pools.read_values(settings, f"{name}{suffix}") or {}

    values = {model.name: read(model.name) for model in models}
    names: dict[str, list[str]] = {"knowing": [], "ignorant": [], "unlearned": []}
    for model in models:
        names[model.pool].append(model.name)
    useful = [name for name in names["unlearned"] if is_useful(settings, name)]
    rows = []
    for metric in METRICS:
        pool = [_known(values, names[key], metric) for key in ("knowing", "ignorant")]
        rows.append(_examine(metric, pool, useful, read, pools.retain_name(settings)))
    counts = {key: len(names[key]) for key in names} | {"useful": len(useful)}
    table = [dataclasses.asdict(row) for row in rows]
    return {"models": counts, "settings": dataclasses.asdict(settings), "metrics": table}


def _known(
    values: Mapping[str, Mapping[str, float | None]], names: Sequence[str], metric: str
) -> list[float]:
    """Return the knowledge values of the models that have one."""
    measured = [values[name].get(metric) for name in names]
    return [as_knowledge(metric, value) for value in measured if value is not None]


def as_knowledge(metric: str, value: float) -> float:
    """Return a metric's value, signed so that higher means more knowledge of the forget set."""
    return value if METRICS[metric] else 1 - value


def _examine(
    metric: str, pool: Sequence[list[float]], useful: Sequence[str],
    read: Callable[..., Mapping[str, float | None]], retain: str,
) -> MetricRow:  # fmt: skip
    columns: dict[str, list[float | None]] = {"r": [], "q": [], "sr": [], "sq": []}
    for name in useful:
        measured = []
        for who, suffix in ((name, BEFORE), (name, RELEARNED), (name, QUANTISED),
                            (retain, BEFORE), (retain, RELEARNED)):  # fmt: skip
            measured.append(read(who, suffix).get(metric))
        if None in measured:
            continue
        before, relearned, quantised, retain_before, retain_after = (
            as_knowledge(metric, value) for value in measured if value is not None
        )
        rises = before, relearned, retain_before, retain_after
        columns["r"].append(trust.relearning_robustness(*rises))
        columns["q"].append(trust.quantisation_robustness(before, quantised))
        columns["sr"].append(trust.symmetric_relearning(*rises))
        columns["sq"].append(trust.symmetric_quantisation(before, quantised))
    means = {key: trust.mean_of_known(column) for key, column in columns.items()}
    faithfulness = trust.faithfulness(*pool) if all(pool) else None
    robustness = trust.harmonic_mean(means["r"], means["q"])
    return MetricRow(
        metric, faithfulness, means["r"], means["q"], robustness,
        trust.harmonic_mean(faithfulness, robustness),
        means["sr"], means["sq"], trust.harmonic_mean(means["sr"], means["sq"]),
    )  # fmt: skip
