"""The other models of a finished run, as its folder tells: for its audit and its chat."""

from pathlib import Path
from typing import Any

from tif.config.errors import ConfigError, collect_problems
from tif.config.schema import Config
from tif.models.pretrained import Source, find_on_disk
from tif.records import run_folder
from tif.utils import hub


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
    stage = run_folder.find_stage(folder, name)
    return str(stage / "model") if stage else None


def use_downloads(settings: Any, given: set[str], reads_data: bool) -> None:
    """Replace hub names that no word of the command gave by the folders of their downloads.

    Args:
        settings: of an audit or a chat.
        given: the keys that words of the command gave.
        reads_data: whether the samples are read too.

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
    is_read = reads_data and bool(settings.data.reader.hub)
    is_on_hub = is_read and path is not None and hub.can_be_hub_path(path)
    if path and is_on_hub and "data.path" not in given and not hub.has_data_set(path):
        problems.append(hub.describe_unasked("data.path", path, hub.DATA_SETS.get(path)))
    if problems:
        raise ConfigError("\n".join(problems))


def describe_missing_stage(role: str, path: str | None) -> str | None:
    """Return in a line why the model of a run's stage is not there; None where it is."""
    if not path or Path(path).parent.parent.name != "stages" or Path(path).is_dir():
        return None
    reason = "the stage was deleted or left behind, or another version of tif made it"
    return f"{role}: no {path}: {reason}"
