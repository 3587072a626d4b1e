"""The audit of a run: its three models and its keys are read from its folder.

Nothing in the folder acts: see config/stored.py. Called by tif/audit.py and, for `eval.audit`, by
training/run.py at the end of a run.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from tif.config import load as config
from tif.config.audit_command import Audit
from tif.config.chat_command import ChatCommand
from tif.config.data import MUSE
from tif.config.errors import ConfigError, collect_problems
from tif.config.evaluation import EvalRules
from tif.config.schema import Config, Identifier, Lora
from tif.evaluation import audit
from tif.evaluation.audit import AuditPlan
from tif.identifiers import COSTLY_KINDS
from tif.identifiers.stored_spans import RUN_SPANS
from tif.models.pretrained import Source, find_on_disk
from tif.records.audit_file import FOLDER
from tif.reports.audit import show_audit, write_page
from tif.reports.html.run_report import write_run_report
from tif.training import run_folders
from tif.utils import distributed, hub


def list_runs(folder: Path) -> list[Path]:
    """Return the folder if it is a run's, else the finished runs in it, as a sweep makes them.

    Raises:
        ConfigError: If there is none.
    """
    if (folder / run_folders.CONFIG).is_file():
        return [folder]
    files = sorted(folder.glob(f"**/{run_folders.DONE}")) if folder.is_dir() else []
    runs = [file.parent for file in files if (file.parent / run_folders.CONFIG).is_file()]
    runs = [run for run in runs if run.parent.name != "stages"]
    if not runs:
        raise ConfigError(f"{folder}: no run folder and no finished runs in it; want a run's "
            "folder, as runs/quickstart")
    return runs


def plan_run_audit(
    folder: Path, words: Sequence[str] = (), best: bool = False, out: Path | None = None
) -> AuditPlan:
    """Return the audit of a run, from its folder and the words of a command.

    Args:
        folder: of a finished run.
        words: key=value, over what counts of the run's configuration.
        best: whether model_best/ is audited, where there is one.
        out: default of the key `out`; None = the run's folder of audits.

    Raises:
        ConfigError: If the run has no exported model, or its stages are not there.
    """
    cfg = config.read_stored(folder / run_folders.CONFIG)
    name = "model_best" if best and (folder / "model_best").is_dir() else "model"
    if not (folder / name / "config.json").is_file():
        raise ConfigError(
            f"{folder}: holds no {name}/ of a whole model; want a run with run.export=true (and "
            "model.lora.merge=true)"
        )
    given = config.list_given(words)
    defaults = _list_defaults(cfg, folder, name)
    defaults.out = str(out or folder / FOLDER)
    defaults.identifier = Identifier()
    if "identifier.kind" not in given:
        defaults.identifier = find_stored_words(cfg.identifier, folder)
    settings = config.read(lambda: defaults, words)
    missing = _find_missing_stage(settings)
    if missing:
        raise ConfigError(f"{folder}: {missing}")
    _check_judge(settings, given)
    use_downloads(settings, given)
    return AuditPlan(settings, folder / "spans", folder)


def audit_finished_run(cfg: Config, folder: Path) -> None:
    """Attack a run that has just finished, for `eval.audit`; print the table and write the page."""
    trusts = str(cfg.model.trust_remote_code).lower()
    words = [f"attacks=[{','.join(cfg.eval.audit)}]", f"model.trust_remote_code={trusts}"]
    plan = plan_run_audit(folder, words, out=Path(cfg.run.folder) / "audits")
    inputs = audit.plan_audit(plan)
    content = audit.run_attacks(inputs)
    if distributed.is_first_rank():
        results = inputs.subjects["unlearned"].folder
        write_page(results, audit.write_audit(results, content))
        show_audit(content, results)
        write_run_report(folder)


def _list_defaults(cfg: Config, folder: Path, name: str) -> Audit:
    """Return the keys of an audit of a model (`name`) in the folder of a run."""
    section = dataclasses.replace(
        cfg.model, path=str(folder / name), base=None, init={}, lora=Lora(), quantize="none",
        gradient_checkpointing=False,
    )  # fmt: skip
    rules = {field.name: getattr(cfg.eval, field.name) for field in dataclasses.fields(EvalRules)}
    settings = Audit(
        target=find_model_before(cfg, folder), retain_model=find_retain_model(cfg, folder),
        seed=cfg.run.seed, device="cpu" if cfg.trainer.accelerator == "cpu" else "auto",
        model=section, data=cfg.data, eval=EvalRules(**rules),
    )  # fmt: skip
    settings.relearn.lr = cfg.optimizer.lr
    return settings


def find_stored_words(identifier: Identifier, folder: Path) -> Identifier:
    """Return the identifier that reads the unwanted words of a run from files.

    These are the spans that the run stored. A run without them, by an older tif, is served by its
    own identifier where that loads no model and asks no server.
    """
    stored, file = folder / RUN_SPANS, os.path.expanduser(identifier.path or "")
    is_local = identifier.kind not in COSTLY_KINDS
    if identifier.kind == "precomputed":
        is_local = os.path.exists(file)
    if is_local and not stored.exists():
        return identifier
    return Identifier(kind="precomputed", path=str(stored))


def _check_judge(settings: Audit, given: set[str]) -> None:
    """Raise ConfigError where a judge is named, and its server would be anybody's."""
    if settings.sample.judge and "identifier.generative.base_url" not in given:
        raise ConfigError(
            "identifier.generative.base_url: sample.judge sends answers to a server, and a run's "
            "file names none; want its address on the command line, as https://api.openai.com/v1"
        )


def use_downloads(settings: Audit | ChatCommand, given: set[str]) -> None:
    """Replace hub names that no word of the command gave by the folders of their downloads.

    Raises:
        ConfigError: If one was not downloaded before; all problems, one a line.
    """
    problems: list[str] = []
    for key in ("target", "retain_model", "model.tokenizer"):
        owner = settings.model if key.startswith("model.") else settings
        name = key.removeprefix("model.")
        path = getattr(owner, name)
        if path and key not in given:
            with collect_problems(problems):
                setattr(owner, name, find_on_disk(Source(path, key)))
    path = settings.data.path
    is_read = isinstance(settings, Audit) and settings.data.benchmark in ("tofu", *MUSE)
    is_on_hub = is_read and path is not None and hub.can_be_hub_path(path)
    if path and is_on_hub and "data.path" not in given and not hub.has_data_set(path):
        problems.append(hub.describe_unasked("data.path", path, hub.DATA_SETS.get(path)))
    if problems:
        raise ConfigError("\n".join(problems))


def find_model_before(cfg: Config, folder: Path) -> str | None:
    """Return the model that the run in a folder started from."""
    if cfg.model.path in cfg.stages:
        return _stage_model(folder, str(cfg.model.path))
    return cfg.model.path


def find_retain_model(cfg: Config, folder: Path) -> str | None:
    """Return the retain model's folder: a stage's, or that of the run whose records are named."""
    if cfg.eval.retain_model:
        return cfg.eval.retain_model
    records = cfg.eval.retain_records
    if records is None or records in cfg.stages:
        return _stage_model(folder, records) if records else None
    for parent in Path(records).parents:
        if (parent / "model" / "config.json").is_file():
            return str(parent / "model")
    return None


def _stage_model(folder: Path, name: str) -> str | None:
    """Return the model of a stage, where the run says that it is; None where it does not."""
    stage = run_folders.find_stage(folder, name)
    return str(stage / "model") if stage else None


def _find_missing_stage(settings: Audit) -> str | None:
    """Return in a line which of the run's other models is not there, or None."""
    for name in ("target", "retain_model"):
        path = getattr(settings, name)
        if path and Path(path).parent.parent.name == "stages" and not Path(path).is_dir():
            stage = Path(path).parent.name.rpartition("-")[0]
            return (
                f"{name}: no {path}: the stage was deleted, or another version of tif made it; "
                f"want tif fit RUN/config.yaml stage={stage}, or {name}=MODEL"
            )
    return None

