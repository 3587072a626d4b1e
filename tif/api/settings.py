"""Arguments of Python functions as words of the commands.

A key of the configuration is a keyword argument: a section with a mapping of its keys, or a dotted
name. `optimizer={"lr": 1e-4}` and `**{"optimizer.lr": 1e-4}` are the word `optimizer.lr=0.0001`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from tif.config import load as config
from tif.config.errors import ConfigError, collect_problems
from tif.config.files import list_model_presets
from tif.config.identifier import PATTERNS
from tif.config.layers import PRESET, flatten
from tif.config.registry import Entry

IdentifierLike = str | Sequence[str] | Mapping[str, Any]


def list_words(keys: Mapping[str, Any]) -> list[str]:
    """Return keyword arguments as `key=value` words, as one would write them.

    Raises:
        ConfigError: For values that no configuration can hold; one line each.
    """
    words, problems = [], []
    for key, value in flatten(keys).items():
        try:
            words.append(f"{key}={_write_value(value)}")
        except (TypeError, ValueError):
            kinds = "text, number, true or false, None, list or dict"
            problems.append(f"{key}: want a {kinds}, got a {type(value).__name__}")
    if problems:
        raise ConfigError("\n".join(problems))
    return words


def _write_value(value: Any) -> str:
    """Return a value as YAML reads it: a plain text as it is, all else in JSON."""
    if isinstance(value, PathLike):
        value = str(value)
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_./~][\w./~-]*", value)
    if is_plain and yaml.safe_load(value) == value:
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=_encode)


def _encode(value: Any) -> Any:
    """Return a path as text and a set as a list, for JSON."""
    if isinstance(value, PathLike | set | frozenset):
        return str(value) if isinstance(value, PathLike) else list(value)
    raise TypeError


def call_all(*functions: Callable[[], Any]) -> list[Any]:
    """Return the results of all functions; ConfigError with the problems of all that raise."""
    results: list[Any] = []
    problems: list[str] = []
    for function in functions:
        with collect_problems(problems):
            results.append(function())
    if problems:
        raise ConfigError("\n".join(problems))
    return results


def read_words(settings: Sequence[str] | str) -> list[str]:
    """Return the words of a command; ConfigError if they are no texts."""
    words = [settings] if isinstance(settings, str) else list(settings)
    for word in words:
        if not isinstance(word, str):
            wanted = 'want words of the command line, as ["tofu_smollm2.yaml", "optimizer.lr=1e-4"]'
            raise ConfigError(f"settings: {wanted}, got {word!r:.60}")
    return words


def has_key(words: Sequence[str], key: str) -> bool:
    """Return whether one of the words sets a key, or a key inside it."""
    return any(word.startswith((f"{key}=", f"{key}.")) for word in words)


def describe_method(method: str | Entry | None) -> list[str]:
    """Return the word that names a method: a file, its name, or a term of one's own.

    Raises:
        ConfigError: If it is none of them.
    """
    match method:
        case None:
            return []
        case Entry():
            function = getattr(getattr(method, "value", None), "__name__", method.name)
            return [f"loss.forget={method.module}:{function}"]
        case str() | PathLike():
            return [str(method) if config.is_file(str(method)) else f"loss/{method}.yaml"]
    wanted = "want a name in configs/loss, a YAML file or a function under @tif.term"
    raise ConfigError(f"method: {wanted}, got {method!r:.60}")


def describe_identifier(identifier: IdentifierLike | None) -> list[str]:
    """Return the words that name an identifier: a kind, a list of words, or a section.

    Raises:
        ConfigError: If it is none of them.
    """
    section: Any = {} if identifier is None else identifier
    if isinstance(identifier, str):
        section = {"kind": identifier}
    elif isinstance(section, Sequence) and all(isinstance(word, str) for word in section):
        patterns = [word for word in section if word in PATTERNS]
        listed = [word for word in section if word not in PATTERNS]
        section = {"kind": "words", "words": listed, "patterns": patterns}
    if not isinstance(section, Mapping):
        wanted = "want a kind, a list of words and patterns, or a dict of section identifier"
        raise ConfigError(f"identifier: {wanted}, got {identifier!r:.60}")
    return list_words({f"identifier.{key}": value for key, value in section.items()})


def describe_model(model: Any) -> list[str]:
    """Return the word that names a model: a preset, a folder or hub name, or a run's own model.

    None = no word.
    """
    if model is None:
        return []
    folder = getattr(model, "folder", None)
    path = model if folder is None else folder / "model"
    is_preset = isinstance(path, str) and path.partition(":")[0] in list_model_presets()
    if is_preset and not Path(path).is_dir():
        return [f"{PRESET}{path}"]
    return list_words({"model.path": str(path)})
