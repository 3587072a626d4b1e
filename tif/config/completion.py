"""Complete the words of a command in a shell, with argcomplete (extra `completion`).

Called by tif/__main__.py where a shell asks. It is set up by
`eval "$(register-python-argcomplete tif)"`.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from tif.config.check import list_keys
from tif.config.files import list_model_presets, list_own_configs

# The schema of a command's keys, by module and class; other commands take files and folders.
SCHEMAS = {
    "fit": ("schema", "Config"), "sweep": ("schema", "Config"),
    "evaluate": ("evaluate_command", "Evaluate"), "identify": ("identify_command", "Identify"),
    "audit": ("audit_command", "Audit"),
}  # fmt: skip


def answer_shell(commands: Sequence[str]) -> None:
    """Write the words that may stand at the cursor for the shell that asks, and exit."""
    import argcomplete

    parser = argparse.ArgumentParser("tif", add_help=False)
    parser.add_argument("command", choices=commands)
    words: Any = parser.add_argument("words", nargs="*")
    words.completer = list_words
    argcomplete.autocomplete(parser)


def list_words(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the words of a command that begin with `prefix`: files, keys, values of a key."""
    if parsed_args.command not in SCHEMAS:
        return []
    module, name = SCHEMAS[parsed_args.command]
    schema = getattr(importlib.import_module(f"tif.config.{module}"), name)
    words = [*list_own_configs(), *(f"model={preset}" for preset in list_model_presets())]
    for key, field, _value in list_keys(schema()):
        choices = field.metadata.get("choices") or ("",)
        words += [f"{key}={choice}" for choice in choices]
    return [word for word in words if word.startswith(prefix)]
