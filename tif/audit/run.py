"""The audit of a run: its three models and its keys are read from its folder.

Nothing in the folder acts: see config/stored.py. Called by the command and, for `eval.audit`, as
a step after a run (`audit_finished_run`).
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from tif.audit import run_attacks as audit
from tif.audit.attacks.relearn import Relearn
from tif.audit.attacks.sample import SampleKeys
from tif.audit.keys import FOLDER, AuditKeys, make_settings
from tif.audit.run_attacks import AuditPlan
from tif.audit.tables import show_audit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.evaluation import EvalRules, make_rules
from tif.config.identifier import make_identifier
from tif.config.schema import Config, Identifier
from tif.identifiers.registration import get_kind
from tif.identifiers.span_cache import RUN_SPANS
from tif.records import run_folder
from tif.training.run_models import (
    describe_missing_stage,
    exported_model,
    find_model_before,
    find_retain_model,
    use_downloads,
)
from tif.utils import distributed


def list_runs(folder: Path) -> list[Path]:
    """Return the folder if it is a run's, else the finished runs in it, as a sweep makes them.

    Raises:
        ConfigError: If there is none.
    """
    if (folder / run_folder.CONFIG_FILE).is_file():
        return [folder]
    files = sorted(folder.glob(f"**/{run_folder.SUMMARY_FILE}")) if folder.is_dir() else []
    runs = [file.parent for file in files if (file.parent / run_folder.CONFIG_FILE).is_file()]
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
    cfg = config.read_stored(folder / run_folder.CONFIG_FILE)
    name = "model_best" if best and (folder / "model_best").is_dir() else "model"
    if not (folder / name / "config.json").is_file():
        raise ConfigError(
            f"{folder}: holds no {name}/ of a whole model; want a run with run.export=true (and "
            "model.lora.merge=true)"
        )
    given = config.list_given(words)
    defaults = _list_defaults(cfg, folder, name)
    defaults.out = str(out or folder / FOLDER)
    defaults.identifier = make_identifier()
    if "identifier.kind" not in given:
        defaults.identifier = find_stored_words(cfg.identifier, folder)
    settings = config.read(lambda: defaults, words)
    missing = _find_missing_stage(settings)
    if missing:
        raise ConfigError(f"{folder}: {missing}")
    _check_judge(settings, given)
    use_downloads(settings, given, reads_data=True)
    return AuditPlan(settings, folder / "spans", folder)


def audit_finished_run(cfg: Config, folder: Path) -> None:
    """Attack a run that has just finished, where `eval.audit` says so; print and write the page.

    A step of `tif.training.run.run`.
    """
    if not cfg.eval.audit:
        return
    trusts = str(cfg.model.trust_remote_code).lower()
    words = [f"attacks=[{','.join(cfg.eval.audit)}]", f"model.trust_remote_code={trusts}"]
    plan = plan_run_audit(folder, words, out=Path(cfg.run.folder) / "audits")
    inputs = audit.plan_audit(plan)
    content, _ = audit.complete_audit(inputs)
    if distributed.is_first_rank():
        show_audit(content, inputs.subjects["unlearned"].folder)


def _list_defaults(cfg: Config, folder: Path, name: str) -> AuditKeys:
    """Return the keys of an audit of a model (`name`) in the folder of a run."""
    rules = make_rules(EvalRules)
    for field in dataclasses.fields(rules):
        setattr(rules, field.name, getattr(cfg.eval, field.name))
    settings = make_settings(
        target=find_model_before(cfg, folder), retain_model=find_retain_model(cfg, folder),
        seed=cfg.run.seed, device="cpu" if cfg.trainer.accelerator == "cpu" else "auto",
        model=exported_model(cfg.model, folder / name), data=cfg.data, eval=rules,
    )  # fmt: skip
    settings.keys_of(Relearn).lr = cfg.optimizer.lr
    return settings


def find_stored_words(identifier: Identifier, folder: Path) -> Identifier:
    """Return the identifier that reads the unwanted words of a run from files.

    These are the spans that the run stored. A run without them, by an older tif, is served by its
    own identifier where that loads no model and asks no server.
    """
    stored, file = folder / RUN_SPANS, os.path.expanduser(identifier.path or "")
    is_local = not get_kind(identifier.kind).is_costly
    if identifier.kind == "precomputed":
        is_local = os.path.exists(file)
    if is_local and not stored.exists():
        return identifier
    return make_identifier(kind="precomputed", path=str(stored))


def _check_judge(settings: AuditKeys, given: set[str]) -> None:
    """Raise ConfigError where a judge is named, and its server would be anybody's."""
    if settings.keys_of(SampleKeys).judge and "identifier.generative.base_url" not in given:
        raise ConfigError(
            "identifier.generative.base_url: sample.judge sends answers to a server, and a run's "
            "file names none; want its address on the command line, as https://api.openai.com/v1"
        )


def _find_missing_stage(settings: AuditKeys) -> str | None:
    """Return in a line which of the run's other models is not there, or None."""
    for name in ("target", "retain_model"):
        path = getattr(settings, name)
        problem = describe_missing_stage(name, path)
        if problem:
            stage = Path(path).parent.name.rpartition("-")[0]
            return f"{problem}; want tif fit RUN/config.yaml stage={stage}, or {name}=MODEL"
    return None

