"""Plan an audit, and run its attacks on each of its models.

Called by the command and, for `eval.audit`, at the end of a run. What an attack leaves of a model
is stored under all that decides about it, beside that model: a killed audit goes on, and runs that
share target and retain model share their results.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from tif._version import VERSION
from tif.audit.attack import Attack, AttackInputs, AttackResult, get_attack
from tif.audit.facts import list_facts
from tif.audit.keys import FOLDER, AuditKeys
from tif.audit.page_section import refresh_report
from tif.audit.results import summarize_audit, write_audit
from tif.audit.tables import write_page
from tif.config.errors import ConfigError, collect_problems
from tif.config.files import check_inside, check_writable
from tif.config.registry import list_sections
from tif.data.benchmarks import read_benchmark
from tif.data.samples import Benchmark, fingerprint
from tif.evaluation.model_on_demand import USER_ERRORS, Subject, plan_subjects, read_or_compute
from tif.identifiers import span_cache
from tif.records.run_folder import CONFIG_FILE
from tif.utils import distributed
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console


@dataclasses.dataclass(frozen=True)
class AuditPlan:
    """An audit of a run or of a model: its keys, and where it reads and writes."""

    settings: AuditKeys  # keys of the audit, with the paths of all three models
    spans: Path  # folder where spans that take time are stored
    run: Path | None = None  # folder of the run; None = a model without one


def plan_audit(plan: AuditPlan) -> AttackInputs:
    """Read the data and check every path; no weights load.

    Raises:
        ConfigError: With all problems, one a line.
    """
    problems: list[str] = []
    settings = plan.settings
    if plan.run is not None:
        for name in (FOLDER, "spans"):
            with collect_problems(problems):
                check_inside(plan.run / name, plan.run)
    place = partial(_place_results, plan)
    inputs = AttackInputs(
        settings, Benchmark("", (), (), {}), plan_subjects(settings, problems, place)
    )
    with collect_problems(problems, USER_ERRORS):
        inputs = dataclasses.replace(inputs, benchmark=_read_data(plan))
    for name in settings.attacks:
        if not problems:
            with collect_problems(problems, USER_ERRORS):
                get_attack(name).check(inputs)
    if problems:
        raise ConfigError("\n".join(problems))
    for subject in inputs.subjects.values():
        check_writable("out", subject.folder)
    return inputs


def _place_results(plan: AuditPlan, role: str, model: str) -> Path:
    """Return the folder of a model's results: in its run's folder, or in `out`.

    Of a run that is looked at, the other models' lie in `out`, wherever its files say they are.
    """
    path = Path(model).expanduser()
    is_export = path.name.startswith("model") and (path.parent / CONFIG_FILE).is_file()
    stands_beside = is_export if plan.run is None else role == "unlearned"
    if stands_beside:
        return path.parent / FOLDER
    return Path(plan.settings.out) / f"{path.name}-{hash_json(list_model_files(model) or model)}"


def _read_data(plan: AuditPlan) -> Benchmark:
    """Return the benchmark, with the unwanted spans that its data or the identifier gives."""
    settings = plan.settings
    benchmark = read_benchmark(settings.data)
    forget = benchmark.forget
    if any(not sample.prompt for sample in forget):
        raise ConfigError(
            f"data.benchmark: {settings.data.benchmark} has documents without questions; an audit "
            "wants questions with answers"
        )
    if any(sample.unwanted is None for sample in forget):
        identifier = span_cache.complete_identifier(settings.identifier, settings.model)
        prompts, samples = settings.data.prompts, forget
        forget = distributed.run_on_first_rank(
            lambda: span_cache.identify_once(identifier, samples, prompts, plan.spans)
        )
    if not any(list_facts(sample) for sample in forget):
        kind = settings.identifier.kind
        raise ConfigError(
            f"identifier.kind: {kind} leaves no unwanted words that the questions do not say; an "
            "audit looks for them in answers"
        )
    return dataclasses.replace(benchmark, forget=forget)


def complete_audit(inputs: AttackInputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attack all models; write audit.json, its page and, where there is one, the run's report.

    Returns:
        Content of the attacks that were named, and that of audit.json, where earlier ones stay.
    """
    outcomes: dict[str, dict[str, AttackResult]] = {name: {} for name in inputs.settings.attacks}
    for subject in inputs.subjects.values():
        for name in outcomes:
            outcomes[name][subject.role] = attack_model(name, subject, inputs)
        subject.unload()
    content = summarize_audit(inputs, outcomes)
    folder = inputs.subjects["unlearned"].folder
    stored = content
    if distributed.is_first_rank():
        stored = write_audit(folder, content)
        write_page(folder, stored)
        refresh_report(folder.parent)
    return content, stored


def attack_model(name: str, subject: Subject, inputs: AttackInputs) -> AttackResult:
    """Return what an attack leaves of a model, read from its file or made now."""
    attack = get_attack(name)
    key = hash_json(_list_deciding(attack, subject, inputs))
    path = subject.folder / name / f"{Path(str(subject.section.path)).name}-{key}.json"

    def compute() -> dict[str, Any]:
        if distributed.is_first_rank():
            console.print(f"{name}: {subject.role}, {subject.section.path}", soft_wrap=True)
        return dataclasses.asdict(attack(subject, inputs))

    content = read_or_compute(path, compute)
    return AttackResult(**content)


def _list_deciding(attack: Attack, subject: Subject, inputs: AttackInputs) -> list[Any]:
    """Return all that decides about what an attack leaves of a model."""
    settings = inputs.settings
    keys = dataclasses.asdict(settings.keys_of(attack.keys))
    rules = dataclasses.asdict(settings.eval)
    benchmark_sections = [name for name, _, _ in list_sections("benchmark")]
    for section in ("benchmarks", "lm_eval", *benchmark_sections):
        rules.pop(section, None)  # where benchmarks are changes nothing
    models = []
    for model in (subject, *(inputs.subjects[role] for role in attack.reads)):
        models.append([*model.describe(), model.prompts.describe()])
    data = _describe_data(inputs.benchmark)
    return [VERSION, keys, rules, data, models, settings.seed, settings.batching]


def _describe_data(benchmark: Benchmark) -> list[Any]:
    """Return fingerprints of the samples, and the spans of the forget set."""
    spans = []
    for sample in benchmark.forget:
        spans.append([(span.start, span.end) for span in sample.unwanted or ()])
    evaluated = [*benchmark.sets.values(), benchmark.holdout]
    return [
        fingerprint(benchmark.forget),
        fingerprint(benchmark.retain),
        spans,
        *(fingerprint(samples) for samples in evaluated),
    ]
