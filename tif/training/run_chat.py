"""The models of a run that can be asked: found from its folder. Called by tif/chat.py."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tif.config import load as config
from tif.config.command_keys import ChatCommand
from tif.config.errors import ConfigError, one_line
from tif.config.schema import Config, Lora
from tif.records import run_folder
from tif.training.run_models import (
    describe_missing_stage,
    find_model_before,
    find_retain_model,
    use_downloads,
)


@dataclasses.dataclass(frozen=True)
class RunChat:
    """The keys of a chat with a run's models, and a line for each model that is not there."""

    settings: ChatCommand
    missing: tuple[str, ...]


def plan_run_chat(folder: Path, words: Sequence[str] = (), best: bool = False) -> RunChat:
    """Return the chat with the models of a run.

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
    name = "model_best" if best else "model"
    section = dataclasses.replace(
        cfg.model, path=str(folder / name), base=None, init={}, lora=Lora(), quantize="none",
        gradient_checkpointing=False,
    )  # fmt: skip
    settings = ChatCommand(
        max_new_tokens=cfg.eval.max_new_tokens or ChatCommand.max_new_tokens,
        device="cpu" if cfg.trainer.accelerator == "cpu" else "auto", model=section, data=cfg.data,
    )  # fmt: skip
    reasons = _fill_in_stages(settings, cfg, folder)
    given = config.read(lambda: settings, words)  # words may name the models that are not there
    use_downloads(given, config.list_given(words), reads_data=False)
    missing = [line for role, line in reasons.items() if getattr(given, role) is None]
    if given.model.path == section.path and not (folder / name / "config.json").is_file():
        given.model.path = None
        step = "want a run with run.export=true (and model.lora.merge=true)"
        missing.append(f"unlearned: {folder} holds no {name}/ of a whole model; {step}")
    if not any((given.model.path, given.target, given.retain_model)):
        raise ConfigError("\n".join(missing))
    return RunChat(given, tuple(missing))


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
