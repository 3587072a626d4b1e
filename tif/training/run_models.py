"""The models of a finished run, as its folder tells: for its audit, its chat and the API."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config import load as config
from tif.config.command_keys import ChatCommand
from tif.config.errors import ConfigError, collect_problems, one_line
from tif.config.schema import Config, Lora, Model
from tif.models.pretrained import Source, find_on_disk
from tif.records import run_folder
from tif.utils import hub


def exported_model(settings: Model, path: Path | str) -> Model:
    """Return section `model` of a run for a model that the run has exported, whole, to `path`."""
    return dataclasses.replace(
        settings, path=str(path), base=None, init={}, lora=Lora(), quantize="none",
        gradient_checkpointing=False,
    )  # fmt: skip


def find_model_before(cfg: Config, folder: Path) -> str | None:
    """Return the model that the run in a folder started from."""
    if cfg.model.path in cfg.stages:
        return _stage_model(folder, str(cfg.model.path))
    return cfg.model.path


def find_retain_model(cfg: Config, folder: Path) -> str | None:
    """Return the retain model's folder: a stage's, or that of the run whose records are named."""
    records = cfg.eval.retain_records
    if cfg.eval.retain_model or records is None:
        return cfg.eval.retain_model
    if records in cfg.stages:
        return _stage_model(folder, records)
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
    keys = {"target": settings, "retain_model": settings, "model.tokenizer": settings.model}
    for key, owner in keys.items():
        name = key.removeprefix("model.")
        path = getattr(owner, name)
        if path and key not in given:
            with collect_problems(problems):
                setattr(owner, name, find_on_disk(Source(path, key)))
    path = settings.data.path
    is_read = reads_data and settings.data.reader.hub and "data.path" not in given
    if path and is_read and hub.can_be_hub_path(path) and not hub.has_data_set(path):
        problems.append(hub.describe_unasked("data.path", path, hub.DATA_SETS.get(path)))
    if problems:
        raise ConfigError("\n".join(problems))


def describe_missing_stage(role: str, path: str | None) -> str | None:
    """Return in a line why the model of a run's stage is not there; None where it is."""
    if not path or Path(path).parent.parent.name != "stages" or Path(path).is_dir():
        return None
    reason = "the stage was deleted or left behind, or another version of tif made it"
    return f"{role}: no {path}: {reason}"


def plan_run_chat(
    folder: Path, words: Sequence[str] = (), best: bool = False
) -> tuple[ChatCommand, list[str]]:
    """Return the chat with the models of a run, and a line for each model that is not there.

    Args:
        folder: of the run.
        words: key=value, over what counts of the run's configuration.
        best: whether model_best/ answers instead of model/.

    Raises:
        ConfigError: If it is no run folder, or none of its models is there.
    """
    if not (folder / run_folder.CONFIG_FILE).is_file():
        raise ConfigError(f"{folder}: no run folder; want one, as runs/quickstart, or model.path=")
    cfg = config.read_stored(folder / run_folder.CONFIG_FILE)
    path = folder / ("model_best" if best else "model")
    settings = ChatCommand(
        max_new_tokens=cfg.eval.max_new_tokens or ChatCommand.max_new_tokens,
        device="cpu" if cfg.trainer.accelerator == "cpu" else "auto",
        model=exported_model(cfg.model, path), data=cfg.data,
    )  # fmt: skip
    reasons = _fill_in_stages(settings, cfg, folder)
    given = config.read(lambda: settings, words)  # words may name the models that are not there
    use_downloads(given, config.list_given(words), reads_data=False)
    missing = [line for role, line in reasons.items() if getattr(given, role) is None]
    if given.model.path == str(path) and not (path / "config.json").is_file():
        given.model.path = None
        step = "want a run with run.export=true (and model.lora.merge=true)"
        missing.append(f"unlearned: {folder} holds no {path.name}/ of a whole model; {step}")
    if not any((given.model.path, given.target, given.retain_model)):
        raise ConfigError("\n".join(missing))
    return given, missing


def _fill_in_stages(settings: ChatCommand, cfg: Config, folder: Path) -> dict[str, str]:
    """Set the paths of the run's other models; return by key why one is not there."""
    missing = {}
    for role, find in {"target": find_model_before, "retain_model": find_retain_model}.items():
        try:
            path = find(cfg, folder)
        except (OSError, ValueError) as error:  # the data of its stage are not there any more
            missing[role] = f"{role}: not known: {one_line(error)}"
            continue
        if path is None:
            missing[role] = f"{role}: the run names none; want {role}=MODEL"
        elif problem := describe_missing_stage(role, path):
            missing[role] = f"{problem}; want {role}=MODEL"
        else:
            setattr(settings, role, path)
    return missing
