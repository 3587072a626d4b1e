"""The audit of a run: its three models and its keys are read from its folder.

Called by tif/audit.py and, for `eval.audit`, by training/run.py at the end of a run.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tif.config import load as config
from tif.config.audit_command import Audit
from tif.config.errors import ConfigError
from tif.config.evaluation import EvalRules
from tif.config.schema import Config, Lora
from tif.evaluation import audit
from tif.reports.audit import show_audit, write_page
from tif.reports.html.run_report import write_run_report
from tif.training import plan as planning
from tif.training import run_folders
from tif.utils import distributed


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


@dataclasses.dataclass(frozen=True)
class RunAudit:
    """An audit of a run: its keys, and the folder where spans that take time are stored."""

    settings: Audit
    spans: Path


def plan_run_audit(folder: Path, words: Sequence[str] = (), best: bool = False) -> RunAudit:
    """Return the audit of a run, from its folder and the words of a command.

    Args:
        folder: of a finished run.
        words: key=value, over what the run's configuration says.
        best: whether model_best/ is audited, where there is one.

    Raises:
        ConfigError: If the run has no exported model, or its stages are not there.
    """
    cfg = config.load([str(folder / run_folders.CONFIG)])
    name = "model_best" if best and (folder / "model_best").is_dir() else "model"
    if not (folder / name / "config.json").is_file():
        raise ConfigError(
            f"{folder}: holds no {name}/ of a whole model; want a run with run.export=true (and "
            "model.lora.merge=true)"
        )
    defaults = _list_defaults(cfg, folder, name)
    settings = config.read(lambda: defaults, words)
    missing = _find_missing_stage(settings)
    if missing:
        raise ConfigError(f"{folder}: {missing}")
    return RunAudit(settings, Path(cfg.run.folder) / "spans")


def audit_finished_run(folder: Path, attacks: Sequence[str]) -> None:
    """Attack a run that has just finished, for `eval.audit`; print the table and write the page."""
    plan = plan_run_audit(folder, [f"attacks=[{','.join(attacks)}]"])
    inputs = audit.plan_audit(plan.settings, plan.spans)
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
        out=str(Path(cfg.run.folder) / "audits"), seed=cfg.run.seed,
        device="cpu" if cfg.trainer.accelerator == "cpu" else "auto", model=section,
        data=cfg.data, identifier=cfg.identifier, eval=EvalRules(**rules),
    )  # fmt: skip
    settings.relearn.lr = cfg.optimizer.lr
    return settings


def find_model_before(cfg: Config, folder: Path) -> str | None:
    """Return the model that the run in a folder started from."""
    if cfg.model.path in cfg.stages:
        return _stage_model(cfg, folder, str(cfg.model.path))
    return cfg.model.path


def find_retain_model(cfg: Config, folder: Path) -> str | None:
    """Return the retain model's folder: a stage's, or that of the run whose records are named."""
    if cfg.eval.retain_model:
        return cfg.eval.retain_model
    records = cfg.eval.retain_records
    if records is None or records in cfg.stages:
        return _stage_model(cfg, folder, records) if records else None
    for parent in Path(records).parents:
        if (parent / "model" / "config.json").is_file():
            return str(parent / "model")
    return None


def _stage_model(cfg: Config, folder: Path, name: str) -> str:
    """Return the model of a stage, where the run says that it is, or else where it would be."""
    stage = run_folders.find_stage(folder, name) or planning.plan_stage(cfg, name).folder
    return str(stage / "model")


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

