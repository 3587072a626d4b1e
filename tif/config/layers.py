"""A command's words as layers of keys: files with what they include, the model's preset, overrides.

Besides sections of keys, a file may hold three entries:

    include: [loss/tpo.yaml]           files that are read before it
    cases:                             keys that hold in some cases only, after the file's own
      - when: {model: llama_3_2_3b, data.split: [forget01, forget05]}
        then: {loss: {beta: 0.3}}              may include files too
      - otherwise: what the user is told where no case holds
    variants:                          of a model's preset: model=NAME:VARIANT adds these keys
      24gb: {model: {quantize: nf4}}

In `when`, `model` is the preset's name and all other entries are keys. Called by load.py.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tif.config import files
from tif.config.check import brief, nearest
from tif.config.errors import ConfigError, one_line

ENTRIES = ("include", "cases", "variants")
MOST_FILES = 50  # that one file may include, directly or through others
PRESET = "model="  # model=NAME or model=NAME:VARIANT


@dataclasses.dataclass
class Layer:
    """Keys of a file, or of overrides.

    Attributes:
        name: the file's; "" for overrides.
        keys: its sections.
        cases: what it holds in some cases only.
        advice: what the user is told since none of them holds.
    """

    name: str
    keys: DictConfig
    cases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    advice: list[str] = dataclasses.field(default_factory=list)

    def flat_keys(self) -> dict[str, Any]:
        """Return the keys by their dotted names, interpolations as they stand."""
        return flatten(cast(dict, OmegaConf.to_container(self.keys, resolve=False)))

    def is_of_a_model(self) -> bool:
        """Return whether the layer comes from a model's preset."""
        return _is_of_a_model(self.name)

    def names_method(self) -> bool:
        """Return whether the file names `loss.forget`, and is thus a whole method."""
        return bool(self.name) and self.flat_keys().get("loss.forget") is not None


def read_layers(
    words: Sequence[str], known: Sequence[str], problems: list[str], notes: list[str]
) -> list[Layer]:
    """Return the layers of all words, the strongest last.

    Files come left to right, the model's preset after the first file, overrides at the end.

    Args:
        words: files, model=NAME and key=value.
        known: all keys, to name the nearest of a wrong one.
        problems: gets what is wrong with a word, one line each.
        notes: gets what the user must be told.
    """
    from_files: list[Layer] = []
    from_presets: list[Layer] = []
    overrides: list[Layer] = []
    first_end = 0
    for word in words:
        if files.is_file(word):
            from_files += read_file(word)
            first_end = first_end or len(from_files)
        elif is_preset(word):
            from_presets += read_preset(word)
        elif word.startswith("-"):
            name = nearest(word.lstrip("-").partition("=")[0], known)
            problems.append(f"{word}: want key=value, without dashes{name}")
            break  # the next word is its value
        elif not files.is_override(word[1:]):
            problems.append(f"{word}: want a .yaml file or key=value{_advise_on_path(word)}")
        else:
            overrides += read_override(word, problems)
    layers = [*from_files[:first_end], *from_presets, *from_files[first_end:], *overrides]
    return _apply_cases(layers, preset_name(words), notes)


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
        return [Layer("", OmegaConf.from_dotlist([word]))]
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
    cases = _check_cases(name, content.pop("cases", None) or [])
    return [*layers, Layer(name, OmegaConf.create(content), cases)]


def read_preset(word: str) -> list[Layer]:
    """Return the layers of model=NAME or model=NAME:VARIANT.

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
    variants = _read_content(file).get("variants") or {}
    if variant and variant not in variants:
        raise ConfigError(f"{word}: no such variant{nearest(variant, list(variants))}; {name} has "
            f"{', '.join(variants) or 'none'}")
    if variant:
        layers.append(Layer(f"{file} ({variant})", OmegaConf.create(variants[variant])))
    return layers


def _is_of_a_model(name: str) -> bool:
    return name.removeprefix("configs/").startswith("model/")


def _read_content(name: str) -> dict[str, Any]:
    keys = files.read_yaml(files.find(name))
    return cast(dict[str, Any], OmegaConf.to_container(keys, resolve=False))


def _check_cases(name: str, cases: Any) -> list[dict[str, Any]]:
    """Return a file's cases; ConfigError unless they have the form of this module's docstring."""
    wanted = "want a list of {when: {key: value}, then: {section: ...}} and {otherwise: text}"
    for case in cases if isinstance(cases, list) else [None]:
        is_case = isinstance(case, dict) and (
            case.keys() == {"otherwise"} or (case.keys() == {"when", "then"}
            and isinstance(case["when"], dict) and isinstance(case["then"], dict)))
        if not is_case:
            raise ConfigError(f"{name}: cases: {wanted}, got {brief(case)}")
    return cast(list[dict[str, Any]], cases)


def _apply_cases(
    layers: Sequence[Layer], preset: str | None, notes: list[str]
) -> list[Layer]:
    """Return the layers, each followed by those of its cases that hold.

    `notes` gets the `otherwise` of files of which no case holds, unless later layers replace it.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer.flat_keys()
    values["model"] = preset
    expanded: list[Layer] = []
    for layer in layers:
        holding = [case for case in layer.cases if "when" in case and _holds(case, values)]
        advice = [case["otherwise"] for case in layer.cases if "otherwise" in case and not holding]
        expanded.append(dataclasses.replace(layer, advice=advice))
        for case in holding:
            keys = dict(case["then"])
            for other in keys.pop("include", None) or []:
                expanded += read_file(str(other))
            expanded.append(Layer(layer.name, OmegaConf.create(keys)))
    for number, layer in enumerate(expanded):
        if layer.advice and not _is_replaced(layer, expanded[number + 1 :]):
            notes += [f"{layer.name}: {text}" for text in layer.advice]
    return expanded


def _is_replaced(layer: Layer, later: Sequence[Layer]) -> bool:
    """Return whether later layers leave nothing of what a file's cases would have said."""
    if layer.names_method() and any(other.names_method() for other in later):
        return True
    keys: set[str] = set()
    for other in later:
        keys |= other.flat_keys().keys()
    wanted: set[str] = set()
    for case in layer.cases:
        wanted |= flatten(case.get("then", {})).keys()
    return wanted <= keys


def _holds(case: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    for key, wanted in case["when"].items():
        if values.get(key) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def flatten(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys by their dotted names; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in keys.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
