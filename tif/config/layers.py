"""A command's words as layers of keys: files with what they include, the model's preset, overrides.

The entry `include: [loss/tpo.yaml]` of a file names files that are read before it. A value that
depends on another key is looked up where it stands: ${choose:KEY,{A: 1, B: 2},0} is 0 where KEY is
neither A nor B. model=NAME is configs/model/NAME.yaml, with model/BENCHMARK/NAME.yaml for the data
of a benchmark; model=NAME:VARIANT adds model/VARIANT/NAME.yaml. Called by load.py.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

from tif.config import files
from tif.config.errors import (
    ConfigError,
    brief,
    collect_problems,
    nearest,
    one_line,
    raise_problems,
)
from tif.config.registry import entries

MOST_FILES = 50  # that one file may include, directly or through others
PRESET = "model="  # model=NAME or model=NAME:VARIANT
ANY = object()  # the schema of keys that may be nested in any way


class Layer(NamedTuple):
    """Keys of a file, by section, or of overrides, whose name is empty."""

    name: str
    keys: dict[str, Any]
    is_of_preset: bool = False

    def names_method(self) -> bool:
        """Return whether the file names `loss.forget`, and is thus a whole method."""
        return bool(self.name) and flatten(self.keys).get("loss.forget") is not None


def read_layers(words: Sequence[str], known: Sequence[str] = ()) -> list[Layer]:
    """Return the layers of all words, the strongest last.

    Files come left to right, the model's preset after the first file, overrides at the end.

    Args:
        words: files, model=NAME and key=value.
        known: all keys, to name the nearest of a wrong one.

    Raises:
        ConfigError: If a word is no file or key=value, with all problems; or for a wrong file.
    """
    in_files: list[Layer] = []
    overrides: list[Layer] = []
    problems: list[str] = []
    first_end = 0
    for word in words:
        if files.is_file(word):
            in_files += read_file(word)
            first_end = first_end or len(in_files)
        elif word.startswith("-"):
            name = nearest(word.lstrip("-").partition("=")[0], known)
            problems.append(f"{word}: want key=value, without dashes{name}")
            break  # the next word is its value
        elif not is_preset(word):
            with collect_problems(problems):
                overrides.append(Layer("", _read_override(word)))
    raise_problems(problems)
    benchmark = list_keys_of([*in_files, *overrides]).get("data.benchmark")
    for word in filter(is_preset, words):
        preset = read_preset(word, benchmark)
        in_files[first_end:first_end] = preset
        first_end += len(preset)
    return [*in_files, *overrides]


def list_keys_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the keys that layers give, by dotted name, with the value of the last."""
    keys: dict[str, Any] = {}
    for layer in layers:
        keys |= flatten(layer.keys)
    return keys


def list_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Return the values of the key=value among a command's words; wrong ones are left out."""
    overrides: dict[str, Any] = {}
    for word in words:
        if files.is_override(word) and not is_preset(word):
            with collect_problems([]):
                overrides |= flatten(_read_override(word))
    return overrides


def is_preset(word: str) -> bool:
    """Return whether a word is model=NAME, and not the section as a mapping."""
    value = word.removeprefix(PRESET)
    return word.startswith(PRESET) and bool(value) and not value.startswith(("{", "$"))


def split_preset(word: str) -> tuple[str, str]:
    """Return NAME and VARIANT, or "", of the word model=NAME:VARIANT."""
    name, _, variant = word.removeprefix(PRESET).partition(":")
    return name, variant


def _read_override(word: str) -> dict[str, Any]:
    """Return the keys of the word key=value."""
    line = " ".join(word.split())  # a problem is one line
    if not files.is_override(word[1:]):
        raise ConfigError(f"{line}: want a .yaml file or key=value{_advise_on_path(word)}")
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([word])))
    except Exception as error:  # OmegaConf raises YAML's own errors here
        key, _, value = line.partition("=")
        raise ConfigError(f"{line}: not a key=value that YAML can read ({one_line(error)}); "
            f"a text wants quotes of its own: '{key}=\"{value}\"'") from None


def _advise_on_path(word: str) -> str:
    """Return how a folder or file is given that stands alone, or the nearest of tif's configs."""
    if os.path.isfile(f"{word}/config.json"):
        return f"; a model is given as model.path={word}"
    if os.path.isfile(f"{word}/config.yaml"):
        return f"; a run's configuration is {word}/config.yaml"
    if os.path.exists(word):
        return f"; texts are given as data.path={word}"
    return nearest(f"{word}.yaml", files.list_own_configs())


def read_file(name: str, names: list[str] | None = None) -> list[Layer]:
    """Return the layers of a file: those that it includes, then its own.

    `names`: the files that were read before for the same word; gets this one's.

    Raises:
        ConfigError: If a file is not there or makes no sense, or too many are included.
    """
    names = [name] if names is None else names
    content = files.read_keys(files.find(name))
    included = content.pop("include", None) or []
    layers: list[Layer] = []
    if not isinstance(included, list) or len(names) > MOST_FILES:
        raise ConfigError(f"{name}: include: want a list of files, none that includes itself, at "
            f"most {MOST_FILES} in all, got {brief(included)}")
    for other in map(str, included):
        names.append(other)
        layers += read_file(other, names)
    return [*layers, Layer(name, content)]


def read_preset(word: str, benchmark: str | None) -> list[Layer]:
    """Return the layers of model=NAME or model=NAME:VARIANT, for the data of a benchmark.

    Raises:
        ConfigError: If there is no such preset or variant.
    """
    name, variant = split_preset(word)
    known, variants = files.list_model_presets(), list_variants(name)
    if name not in known:
        raise ConfigError(f"{word}: no preset of that name{nearest(name, known)}; want one of "
            f"{', '.join(known)}; a folder or hub name is given as model.path=")
    if variant and variant not in variants:
        raise ConfigError(f"{word}: no such variant{nearest(variant, variants)}; {name} has "
            f"{', '.join(variants) or 'none'}")
    layers = read_file(f"model/{name}.yaml")
    for folder in (benchmark, variant):
        if folder and folder in files.list_model_folders(name):
            layers += read_file(f"model/{folder}/{name}.yaml")
    return [layer._replace(is_of_preset=True) for layer in layers]


def list_variants(name: str) -> list[str]:
    """Return what model=NAME:VARIANT takes for a preset."""
    return [folder for folder in files.list_model_folders(name) if folder not in
        entries("benchmark")]


def flatten(keys: Mapping[str, Any], schema: Any = ANY, prefix: str = "") -> dict[str, Any]:
    """Return nested keys by their dotted names, as deep as the schema has sections.

    An empty mapping is a value. `schema`: a section's dataclass with values, or ANY.
    """
    flat: dict[str, Any] = {}
    for name, value in keys.items():
        inner = ANY if schema is ANY else getattr(schema, str(name), ANY)
        has_keys = isinstance(value, Mapping) and value
        if has_keys and (inner is ANY or dataclasses.is_dataclass(inner)):
            flat |= flatten(value, inner, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
