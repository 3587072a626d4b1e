"""Models that load when they are first used: those of an audit, of a chat and of `tif evaluate`."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.data import PromptKeys
from tif.config.errors import collect_problems
from tif.config.schema import Model
from tif.data.encoding import Encoder
from tif.models.load import load_policy, load_tokenizer, move_model, read_config
from tif.probes.check_model import check_model
from tif.utils import distributed
from tif.utils.hashing import list_model_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Role of a model -> the key of an audit or chat that names it.
KEYS = {"target": "target", "unlearned": "model.path", "retain": "retain_model"}
# Keys of section `model` that do not change the scores of a model that exists.
NOT_IN_FOLDER = ("path", "base", "init", "reference", "gradient_checkpointing", "trust_remote_code")
USER_ERRORS = (OSError, ValueError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class ModelOnDemand:
    """A model on disk or of the hub; its weights load at the first use.

    Attributes:
        section: section `model`, with the model's path.
        prompts: prompt format of the questions.
        device: where it runs.
    """

    section: Model
    prompts: PromptKeys
    device: torch.device

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of the model's own tokenizer."""
        return Encoder(load_tokenizer(self.section, ()), self.prompts)

    @functools.cached_property
    def config(self) -> Any:
        """Return the content of the model's config.json."""
        return read_config(self.section)

    def describe(self) -> list[Any]:
        """Return what tells the model from others: its files or hub version, and how it loads."""
        path, keys = self.section.path, dataclasses.asdict(self.section)
        weights = list_model_files(path) or (path, getattr(self.config, "_commit_hash", None))
        return [weights, {key: keys[key] for key in keys if key not in NOT_IN_FOLDER}]

    @functools.cached_property
    def model(self) -> "PreTrainedModel":
        """Return the model as it is, in evaluation mode; nobody may change it."""
        return self.load()

    def load(self, **keys: Any) -> "PreTrainedModel":
        """Return a model of the caller's own; `keys` replace those of section `model`."""
        section = dataclasses.replace(self.section, **keys)
        model = load_policy(section, self.encoder.tokenizer, 0, device=self.device)
        return move_model(model, self.device).eval()

    def unload(self) -> None:
        """Free the memory of the model."""
        self.__dict__.pop("model", None)


@dataclasses.dataclass(frozen=True)
class Subject(ModelOnDemand):
    """A model under audit, or one that answers in a chat.

    Attributes:
        role: target, unlearned or retain.
        folder: of its results.
    """

    role: str
    folder: Path


def plan_subjects(
    settings: Any, problems: list[str], place: Callable[[str, str], Path]
) -> dict[str, Subject]:
    """Return the models that the keys `KEYS` of an audit or chat name, by role.

    Args:
        settings: of the audit or chat; a model whose key is null is left out.
        problems: gets what is wrong, one line each.
        place: folder of a model's results, from its role and path.
    """
    subjects: dict[str, Subject] = {}
    with collect_problems(problems, USER_ERRORS, "device: "):
        is_auto = settings.device == "auto"
        device = distributed.select_device("auto") if is_auto else torch.device(settings.device)
    if problems:
        return subjects
    paths = (settings.target, settings.model.path, settings.retain_model)
    for (role, key), path in zip(KEYS.items(), paths, strict=True):
        if path is None:
            continue
        with collect_problems(problems, USER_ERRORS, rename_key=("model.path", key)):
            section = dataclasses.replace(settings.model, path=path, init={})
            check_model(section)
            subject = Subject(section, settings.data.prompts, device, role, place(role, path))
            _ = subject.encoder  # raises for a tokenizer that cannot serve
            subjects[role] = subject
    return subjects
