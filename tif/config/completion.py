"""Complete the words of a command in a shell, with argcomplete (extra `completion`).

Called by tif/__main__.py where a shell asks. It is set up by
`eval "$(register-python-argcomplete tif)"`.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from tif.config.check import list_keys
from tif.config.files import list_model_presets, list_own_configs


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
    words = [*list_own_configs(), *(f"model={preset}" for preset in list_model_presets())]
    for key, field, _value in list_keys(schema()):
        choices = field.metadata.get("choices") or ("",)
        words += [f"{key}={choice}" for choice in choices]
    return [word for word in words if word.startswith(prefix)]
