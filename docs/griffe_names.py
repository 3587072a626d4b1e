"""Let a docstring describe several arguments in one entry, as "low, high: bounds, both included.".

Griffe, which reads the docstrings for mkdocstrings, knows one name an entry. It loads this file
because mkdocs.yml names it, and calls `on_object` for every object of the package.
"""

import re
from typing import Any

import griffe

# An entry of a section: its line with several names, then the lines that are indented deeper.
ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+):(.*(?:\n\1 +.*)*)", re.MULTILINE)


class OneNameAnEntry(griffe.Extension):
    """Repeat an entry with several names for each of them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = ENTRY.sub(repeat_entry, obj.docstring.value)


def repeat_entry(match: re.Match[str]) -> str:
    """Return the entry once for each of its names."""
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}:{text}" for name in names.split(", "))
