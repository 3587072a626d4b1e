"""Which prompt format a command uses where nobody names one: `data.template=auto`, `template=auto`.

Called by `training/plan`, `tif identify` and `tif evaluate`; no weights load.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import TypeVar

from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.schema import Config, Model
from tif.data.templates import resolve_prompts

C = TypeVar("C", bound=Config)


def resolve_template(cfg: C) -> C:
    """Return the configuration with what `data.template=auto` means for its first model.

    A model that cannot be read has no chat template here; the checks of the model say why.
    """
    if not cfg.data.prompts.is_auto:
        return cfg
    tokenizer = None
    with contextlib.suppress(OSError, ValueError):
        model = find_first_model(cfg)
        if model.path is not None:
            from tif.models.load import load_tokenizer  # imports torch

            tokenizer = load_tokenizer(model, ())
    template = resolve_prompts(cfg.data.prompts, tokenizer).template
    return dataclasses.replace(cfg, data=dataclasses.replace(cfg.data, template=template))


def use_template_of_run(cfg: Evaluate) -> Evaluate:
    """Return the keys with the prompt format of the run whose model is evaluated, if it is auto."""
    file = Path(str(cfg.model.path)).expanduser().parent / "config.yaml"
    if not cfg.prompts.is_auto or cfg.records or not file.is_file():
        return cfg
    stored = config.read_stored(file).data
    return dataclasses.replace(cfg, template=stored.template, chat=stored.chat)


def find_first_model(cfg: Config) -> Model:
    """Return section `model` of the run, or of the first of the stages that lead to it."""
    while cfg.model.path in cfg.stages:
        name = str(cfg.model.path)
        pinned = (cfg.stages[name] or {}).get("path")
        cfg = config.stage(cfg, name)
        if pinned is not None:
            return dataclasses.replace(cfg.model, path=str(Path(pinned).expanduser() / "model"))
    return cfg.model
