"""What a user sees of the schema: `--help`, and the words that a shell completes.

Completion is argcomplete's (extra `completion`); `eval "$(register-python-argcomplete tif)"` sets
it up.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tif.config import files
from tif.config.errors import ConfigError, nearest
from tif.config.keys import list_keys, type_name
from tif.config.schema import Config


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


def list_method_files() -> dict[str, list[str]]:
    """Return the names of the files in configs/loss, without .yaml, by their forget term."""
    names: dict[str, list[str]] = {}
    for path in sorted((files.own_configs() / "loss").glob("*.yaml")):
        names.setdefault(files.read_yaml(path).loss.forget, []).append(path.stem)
    return names


def answer_shell(commands: Sequence[str], load_command: Callable[[str], Any]) -> None:
    """Write the words that may stand at the cursor for the shell that asks, and exit.

    `load_command`: returns the `Command` of a name.
    """
    import argcomplete

    def complete(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        return list_words(prefix, load_command(parsed_args.command).schema)

    parser = argparse.ArgumentParser("tif", add_help=False)
    parser.add_argument("command", choices=commands)
    words: Any = parser.add_argument("words", nargs="*")
    words.completer = complete
    argcomplete.autocomplete(parser)


def list_words(prefix: str, schema: Any) -> list[str]:
    """Return the words of a command that begin with `prefix`: files, keys, values of a key."""
    if schema is None:
        return []
    words = files.list_own_configs()
    words += [f"model={preset}" for preset in files.list_model_presets()]
    for key, field, _value in list_keys(schema()):
        choices = field.metadata.get("choices") or ("",)
        words += [f"{key}={choice}" for choice in choices]
    return [word for word in words if word.startswith(prefix)]
