"""Which keys of a run's config.yaml count when the run is looked at: chat, audit, `tif.Run`.

The file of somebody else's run is data. A key counts if it says what the run read, how its model is
loaded and how it is asked. A key that would import a module, trust code, ask a server or name a
place to write to does not: what needs one of these is asked for on the command line, or as an
argument in Python. So the keys of an identifier count unless it loads a model or asks a server.
`tif fit RUN/config.yaml` is the user's own act, and reads all keys.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from tif.config.errors import ConfigError, brief
from tif.config.keys import list_keys
from tif.config.registry import entries
from tif.config.schema import Config

# A section stands for all of its keys.
COUNTED = (
    "run.seed",
    "data",
    "identifier.kind", "identifier.path", "identifier.words", "identifier.patterns",
    "identifier.rule", "identifier.grow",
    "model.path", "model.tokenizer", "model.dtype", "model.attention",
    "optimizer.lr",
    "trainer.accelerator",
    "eval.protocol", "eval.paraphrased_questions", "eval.max_samples", "eval.max_new_tokens",
    "eval.tokens_per_batch", "eval.retain_records", "eval.retain_model",
    "stages",
)  # fmt: skip


def list_counted() -> list[str]:
    """Return the keys of the schema that count."""
    kinds = cast(dict[str, Any], entries("identifier")).items()
    names = [*COUNTED, *(f"identifier.{name}" for name, entry in kinds if not entry.is_costly)]
    starts = tuple(f"{name}." for name in names)
    return [key for key, _, _ in list_keys(Config()) if f"{key}.".startswith(starts)]


def select_counted(keys: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return those keys of a stored configuration that count; `keys` and result by dotted name.

    Of `stages` the names count. A kernel of the hub as `model.attention` does not: it is code.

    Raises:
        ConfigError: If a value that counts holds a ${...}: a file that tif wrote (`name`) has none.
    """
    selected: dict[str, Any] = {}
    counted = list_counted()
    for key, value in keys.items():
        if key == "stages" and isinstance(value, Mapping):
            selected[key] = dict.fromkeys(value)
        elif key == "model.attention" and not re.fullmatch(r"\w+", str(value)):
            continue
        elif key in counted and "${" in repr(value):
            raise ConfigError(f"{name}: {key}: want plain values, got {brief(value)}; a run's "
                "file holds no ${...}")
        elif any(f"{known}.".startswith(f"{key}.") for known in counted):
            selected[key] = value
    return selected
