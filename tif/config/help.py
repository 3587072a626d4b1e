"""Texts made from the schema: `--help`, configs/base.yaml, the documentation's table of methods.

All of it is made from the dataclasses and from the terms' docstrings; `tif.losses` must have been
imported.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from tif.config import load, methods
from tif.config.check import list_keys, type_name
from tif.config.methods import Method
from tif.config.schema import Config

COLUMNS = ("name", "what it does", "files in configs/loss", "own keys", "source")


def help_text(schema: Any = Config) -> str:
    """Return every key of a schema with its type, default and sentence, by section."""
    lines, previous = [], ""
    defaults = schema()
    for key, field, value in list_keys(defaults):
        section = key.split(".")[0]
        if section != previous and dataclasses.is_dataclass(getattr(defaults, section)):
            lines.append(f"\n{section}: {getattr(defaults, section).__doc__}")
        previous = section
        choices = field.metadata.get("choices")
        kind = "|".join(choices) if choices else type_name(field.type)
        lines.append(f"  {key}={value}  ({kind})\n      {field.metadata['help']}")
    return "\n".join(lines)


def command_help(doc: str | None, schema: Any = Config) -> str:
    """Return what `--help` prints: a command's docstring and its keys."""
    return f"{doc}\nKeys, with their defaults:\n{help_text(schema)}"


def base_yaml() -> str:
    """Return configs/base.yaml: every key with its default and its sentence."""
    lines = [
        "# Every key with its default; `python -m tif.fit --help` says the same. Made by "
        "tif.config.help.base_yaml()."
    ]
    previous: list[str] = []
    for key, field, value in list_keys(Config()):
        *path, name = key.split(".")
        for depth, section in enumerate(path):
            if path[: depth + 1] != previous[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        previous = path
        choices = field.metadata.get("choices")
        hint = f" ({' | '.join(choices)})" if choices else ""
        indent = "  " * len(path)
        lines += [f"{indent}# {field.metadata['help']}{hint}", f"{indent}{name}: {value}"]
    return "\n".join(lines) + "\n"


def methods_table() -> str:
    """Return the loss terms as two tables in Markdown, first forget terms, then retain terms."""
    files = _files_by_forget_term()
    forget = [
        _method_row(method, files.get(name, [])) for name, method in sorted(methods.FORGET.items())
    ]
    retain = [_method_row(method, []) for _, method in sorted(methods.RETAIN.items())]
    header = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return (
        "\n".join(
            ["Forget terms:", "", *header, *forget, "", "Retain terms:", "", *header, *retain]
        )
        + "\n"
    )


def _files_by_forget_term() -> Mapping[str, list[str]]:
    """Return the names of the files in configs/loss by the value of their `loss.forget`."""
    files: dict[str, list[str]] = {}
    for path in sorted((load.own_configs() / "loss").glob("*.yaml")):
        files.setdefault(OmegaConf.select(load.read_yaml(path), "loss.forget"), []).append(
            path.stem
        )
    return files


def _method_row(method: Method, files: list[str]) -> str:
    """Return a term's row of the table."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in method.doc.split("\n\n")]
    sources = [text.removeprefix("Source: ") for text in paragraphs if text.startswith("Source: ")]
    keys = [f"`{key}={value}`" for key, _, value in list_keys(method.keys())]
    names = [f"`{name}`" for name in files]
    cells = [
        f"`{method.name}`",
        paragraphs[0],
        ", ".join(names),
        ", ".join(keys),
        " ".join(sources),
    ]
    return f"| {' | '.join(re.sub(r'[|]', chr(92) + '|', cell) for cell in cells)} |"
