"""Texts made from the schema: `--help`, configs/base.yaml, the documentation's table of methods."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tif.config import load, registry
from tif.config.check import list_keys, nearest, type_name
from tif.config.errors import ConfigError
from tif.config.registry import Entry
from tif.config.schema import Config

HEADER = ("| name | role | what it does | configs/loss | own keys | source |", "|---" * 6 + "|")


def command_help(doc: str | None, schema: Any = Config, topics: Sequence[str] = ()) -> str:
    """Return what `--help` prints.

    Args:
        doc: the command's docstring.
        schema: of its keys: the dataclass, or what makes one with the defaults.
        topics: what stands beside `--help`: nothing (the docstring and the sections), names of
            sections or keys (their keys, with type and sentence), or "all".

    Raises:
        ConfigError: For a topic that is none.
    """
    defaults = schema()
    lines: list[str] = [] if topics else [f"{doc}\nSections of keys (--help SECTION lists one, "
        "--help all everything):\n"]
    for section in dataclasses.fields(defaults):
        value = getattr(defaults, section.name)
        if dataclasses.is_dataclass(value) and not topics:
            lines.append(f"  {section.name:11} {(value.__doc__ or '').splitlines()[0]}")
    keys = list(list_keys(defaults))
    if not topics:
        keys = [entry for entry in keys if "." not in entry[0]]
        lines += ["\nKeys without a section:"] if keys else []
    for topic in topics:
        if topic != "all" and not any(_is_about(name, topic) for name, _, _ in keys):
            names = [section.name for section in dataclasses.fields(defaults)]
            known = [*names, *(name for name, _, _ in keys)]
            raise ConfigError(f"--help {topic}: no section or key of that name"
                f"{nearest(topic, known)}; sections: {', '.join(names)}")
    for name, field, text in keys:
        if not topics or any(_is_about(name, topic) for topic in topics):
            kind = "|".join(field.metadata.get("choices") or ()) or type_name(field.type)
            lines.append(f"  {name}={text}  ({kind})\n      {field.metadata['help']}")
    return "\n".join(lines)


def _is_about(name: str, topic: str) -> bool:
    return topic in ("all", name) or name.startswith(f"{topic}.")


def base_yaml() -> str:
    """Return configs/base.yaml: every key with its default and its sentence."""
    lines = ["# Every key with its default; `tif fit --help all` says the same. Made by "
             "tif.config.help.base_yaml()."]
    previous: list[str] = []
    for key, field, value in list_keys(Config()):
        *path, name = key.split(".")
        for depth, section in enumerate(path):
            if path[: depth + 1] != previous[: depth + 1]:
                lines.append(f"{'  ' * depth}{section}:")
        previous, indent = path, "  " * len(path)
        choices = " | ".join(field.metadata.get("choices") or ())
        lines.append(f"{indent}# {field.metadata['help']}" + (f" ({choices})" if choices else ""))
        lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines) + "\n"


def methods_table() -> str:
    """Return all loss terms as a table in Markdown, first forget terms, then retain terms."""
    lines = [*HEADER]
    files = {}
    for name, stems in list_method_files().items():
        files[name] = [f"`{stem}`" for stem in stems]
    for name, term in sorted(registry.entries("forget").items()):
        lines.append(_row("forget", term, files.get(name, [])))
    for _, term in sorted(registry.entries("retain").items()):
        lines.append(_row("retain", term, []))
    return "\n".join(lines) + "\n"


def list_method_files() -> dict[str, list[str]]:
    """Return the names of the files in configs/loss, without .yaml, by their forget term."""
    files: dict[str, list[str]] = {}
    for path in sorted((load.own_configs() / "loss").glob("*.yaml")):
        files.setdefault(load.read_yaml(path).loss.forget, []).append(path.stem)
    return files


def _row(role: str, term: Entry, files: list[str]) -> str:
    """Return a term's row of the table."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in term.doc.split("\n\n")]
    source = paragraphs[-1].removeprefix("Source: ") if len(paragraphs) > 1 else ""
    keys = [f"`{key}={value}`" for key, _, value in list_keys(term.keys())]
    cells = [f"`{term.name}`", role, paragraphs[0], ", ".join(files), ", ".join(keys), source]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
