"""Compare the weights that a model's files hold, by name and shape, with those that it needs.

Only the headers of the files are read. Called by `pretrained.check_model`, before weights load.
"""

import json
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from tif.utils.files import read_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"  # names the file of each weight
Shape = tuple[int, ...]


def check_headers(model: "PreTrainedModel", folder: Path) -> None:
    """Raise ValueError unless the files in a folder have all weights of a model, in its shapes.

    transformers stores some architectures in another form than it computes with (the experts of a
    mixture in one weight or in many), and does not promise how it renames. Where names differ, the
    files must hold as many numbers; `load_model` has the last word.

    Args:
        model: on the meta device.
        folder: a Hugging Face folder.
    """
    in_files = read_shapes(folder)
    stored = _rename_to_model(in_files, model)
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name in sorted(stored.keys() & wanted.keys()):
        if stored[name] != wanted[name]:
            in_its_files, by_its_config = list(stored[name]), list(wanted[name])
            shapes = f"{in_its_files} in its files and {by_its_config} by its config.json"
            raise ValueError(f"the weight {name} is {shapes}")
    surplus = {name: stored[name] for name in stored.keys() - wanted.keys()}
    named_alike = in_files.keys() & wanted.keys()
    _check_no_weight_is_missing(find_missing(model, stored.keys()), surplus, named_alike)
    check_surplus(surplus.keys() - _find_ignored(model, surplus.keys()), wanted.keys())


def read_shapes(folder: Path) -> dict[str, Shape]:
    """Return the shape of each weight in the safetensors files of a folder, by its stored name."""
    names = {SINGLE_FILE}
    if not (folder / SINGLE_FILE).is_file():
        names = set(json.loads(read_bytes(folder / INDEX))["weight_map"].values())
    shapes: dict[str, Shape] = {}
    for file in sorted(names):
        with safe_open(folder / file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118, it is no mapping
                shapes[name] = tuple(weights.get_slice(name).get_shape())
    return shapes


def find_missing(model: "PreTrainedModel", stored: Set[str]) -> dict[str, Shape]:
    """Return name and shape of each parameter that is not stored, nor one that it is tied to."""
    names_of: dict[int, list[str]] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        names_of.setdefault(id(parameter), []).append(name)
    missing = {}
    for names in names_of.values():
        if stored.isdisjoint(names):
            missing[names[0]] = tuple(parameters[names[0]].shape)
    return missing


def check_surplus(surplus: Set[str], wanted: Set[str]) -> None:
    """Raise ValueError where weights that a model does not need are those of further layers."""
    layers = {_without_numbers(name) for name in wanted}
    for name in sorted(surplus):
        if _without_numbers(name) in layers:
            raise ValueError(f"its files hold more layers than its config.json says: {name}")


def _rename_to_model(stored: Mapping[str, Shape], model: "PreTrainedModel") -> dict[str, Shape]:
    """Return the shapes by the model's names: files may have them without or with its prefix."""
    wanted = model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    shapes = {}
    for name, shape in stored.items():
        candidates = (name, prefix + name, name.removeprefix(prefix))
        known = [candidate for candidate in candidates if candidate in wanted]
        shapes[known[0] if known else name] = shape
    return shapes


def _check_no_weight_is_missing(
    missing: Mapping[str, Shape], surplus: Mapping[str, Shape], named_alike: Set[str]
) -> None:
    """Raise ValueError where missing weights cannot be those that are stored by other names.

    Parts of a model go by the first word of the names ("bert", "classifier"): where some weights of
    a part have the model's names in the files, its others are not stored in another part.
    """
    known_parts = {_first_word(name) for name in named_alike}
    for part in sorted({_first_word(name) for name in missing}):
        absent = {name: shape for name, shape in missing.items() if _first_word(name) == part}
        others = dict(surplus)
        if part in known_parts:
            others = {name: shape for name, shape in surplus.items() if _first_word(name) == part}
        if _count_numbers(others) < _count_numbers(absent):
            raise ValueError(f"its files lack {len(missing)} weights, as {min(absent)}")


def _find_ignored(model: "PreTrainedModel", names: Set[str]) -> set[str]:
    """Return the names of weights that the model's class knows and leaves in the files."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return {name for name in names if any(re.search(pattern, name) for pattern in patterns)}


def _count_numbers(shapes: Mapping[str, Shape]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


def _first_word(name: str) -> str:
    return name.split(".", 1)[0]


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "N", name)
