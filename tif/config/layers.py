"""A command's words as layers of keys: files with what they include, the model's preset, overrides.

Besides sections of keys, a file may hold two entries:

    include: [loss/tpo.yaml]           files that are read before it
    variants:                          of a model's preset: model=NAME:VARIANT adds these keys
      24gb: {model: {quantize: nf4}}

A variant that is called as the value of data.benchmark is read by itself, before the other.
A value that depends on another key is looked up where it stands: ${choose:KEY,{A: 1, B: 2},0}
is 0 where KEY is neither A nor B. Called by load.py.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tif.config import files
from tif.config.errors import ConfigError, brief, nearest, one_line
from tif.config.registry import entries

MOST_FILES = 50  # that one file may include, directly or through others
PRESET = "model="  # model=NAME or model=NAME:VARIANT


@dataclasses.dataclass
class Layer:
    """Keys of a file, or of overrides.

    Attributes:
        name: the file's; "" for overrides.
        keys: its sections.
    """

    name: str
    keys: dict[str, Any]

    def flat_keys(self) -> dict[str, Any]:
        """Return the keys by their dotted names, interpolations as they stand."""
        return flatten(self.keys)

    def is_of_a_model(self) -> bool:
        """Return whether the layer comes from a model's preset."""
        return _is_of_a_model(self.name)

    def names_method(self) -> bool:
        """Return whether the file names `loss.forget`, and is thus a whole method."""
        return bool(self.name) and self.flat_keys().get("loss.forget") is not None


def read_layers(
    words: Sequence[str], known: Sequence[str], problems: list[str]
) -> list[Layer]:
    """Return the layers of all words, the strongest last.

    Files come left to right, the model's preset after the first file, overrides at the end.

    Args:
        words: files, model=NAME and key=value.
        known: all keys, to name the nearest of a wrong one.
        problems: gets what is wrong with a word, one line each.
    """
    from_files: list[Layer] = []
    presets: list[str] = []
    overrides: list[Layer] = []
    first_end = 0
    for word in words:
        if files.is_file(word):
            from_files += read_file(word)
            first_end = first_end or len(from_files)
        elif is_preset(word):
            presets.append(word)
        elif word.startswith("-"):
            name = nearest(word.lstrip("-").partition("=")[0], known)
            problems.append(f"{word}: want key=value, without dashes{name}")
            break  # the next word is its value
        elif not files.is_override(word[1:]):
            problems.append(f"{word}: want a .yaml file or key=value{_advise_on_path(word)}")
        else:
            overrides += read_override(word, problems)
    benchmark = None
    for layer in (*from_files, *overrides):
        benchmark = layer.flat_keys().get("data.benchmark", benchmark)
    from_presets: list[Layer] = []
    for word in presets:
        from_presets += read_preset(word, benchmark)
    return [*from_files[:first_end], *from_presets, *from_files[first_end:], *overrides]


def _advise_on_path(word: str) -> str:
    """Return how a folder or file is given that stands alone, or the nearest of tif's configs."""
    if os.path.isfile(f"{word}/config.json"):
        return f"; a model is given as model.path={word}"
    if os.path.isfile(f"{word}/config.yaml"):
        return f"; a run's configuration is {word}/config.yaml"
    if os.path.exists(word):
        return f"; texts are given as data.path={word}"
    return nearest(f"{word}.yaml", files.list_own_configs())


def is_preset(word: str) -> bool:
    """Return whether a word is model=NAME, and not the section as a mapping."""
    value = word.removeprefix(PRESET)
    return word.startswith(PRESET) and bool(value) and not value.startswith(("{", "$"))


def preset_name(words: Sequence[str]) -> str | None:
    """Return NAME of the word model=NAME[:VARIANT], or None."""
    names = [word.removeprefix(PRESET).partition(":")[0] for word in words if is_preset(word)]
    return names[-1] if names else None


def read_override(word: str, problems: list[str]) -> list[Layer]:
    """Return the layer of a key=value; none where it is wrong, which goes to `problems`."""
    try:
        return [Layer("", _as_dict(OmegaConf.from_dotlist([word])))]
    except Exception as error:  # OmegaConf raises YAML's own errors here
        key, _, value = word.partition("=")
        problems.append(f"{word}: not a key=value that YAML can read ({one_line(error)}); "
            f"a text wants quotes of its own: '{key}=\"{value}\"'")
    return []


def read_file(name: str, depth: int = 0, names: list[str] | None = None) -> list[Layer]:
    """Return the layers of a file: those that it includes, then its own.

    Args:
        name: of the file.
        depth: how many files around it include each other.
        names: of the files that were read before for the same word; gets this one's.

    Raises:
        ConfigError: If a file is not there or makes no sense, or too many are included.
    """
    names = [] if names is None else names
    names.append(name)
    if len(names) > MOST_FILES:
        raise ConfigError(f"{names[0]}: include: want at most {MOST_FILES} files in all")
    content = _read_content(name)
    layers: list[Layer] = []
    included = content.pop("include", None) or []
    if not isinstance(included, list) or depth > 5:
        raise ConfigError(f"{name}: include: want a list of files, none that includes itself, "
            f"got {brief(included)}")
    for other in included:
        layers += read_file(str(other), depth + 1, names)
    if content.pop("variants", None) is not None and not _is_of_a_model(name):
        raise ConfigError(f"{name}: variants: only a file of configs/model has them")
    return [*layers, Layer(name, content)]


def read_preset(word: str, benchmark: str | None) -> list[Layer]:
    """Return the layers of model=NAME or model=NAME:VARIANT, for the data of a benchmark.

    Raises:
        ConfigError: If there is no such preset or variant.
    """
    name, _, variant = word.removeprefix(PRESET).partition(":")
    known = files.list_model_presets()
    if name not in known:
        raise ConfigError(f"{word}: no preset of that name{nearest(name, known)}; want one of "
            f"{', '.join(known)}; a folder or hub name is given as model.path=")
    file = f"model/{name}.yaml"
    layers = read_file(file)
    variants = read_variants(name)
    names = [key for key in variants if key not in entries("benchmark")]
    if variant and variant not in names:
        raise ConfigError(f"{word}: no such variant{nearest(variant, names)}; {name} has "
            f"{', '.join(names) or 'none'}")
    for key in (benchmark, variant):
        if key in variants:
            keys = dict(variants[key])
            for other in keys.pop("include", ()):
                layers += read_file(other)
            layers.append(Layer(f"{file} ({key})", keys))
    return layers


def read_variants(name: str) -> dict[str, Any]:
    """Return the variants of a model's preset, and its keys for benchmarks, by name."""
    return _read_content(f"model/{name}.yaml").get("variants") or {}


def _is_of_a_model(name: str) -> bool:
    return name.removeprefix("configs/").startswith("model/")


def _read_content(name: str) -> dict[str, Any]:
    return _as_dict(files.read_yaml(files.find(name)))


def _as_dict(keys: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(keys, resolve=False))


def flatten(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys by their dotted names; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in keys.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
