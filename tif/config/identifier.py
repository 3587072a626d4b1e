"""Section `identifier`: which identifier labels the words, and the keys that several of them read.

An identifier declares its keys itself (`tif.identifiers.registration`). `make_identifier`
adds them as sections of its name: `identifier.masked_lm.model`, ...
"""

import dataclasses
from typing import Any, TypeVar

from tif.config import registry
from tif.config.keys import NoKeys, find_section, key
from tif.config.model import DTYPES, Model

PATTERNS = ("email", "phone", "date", "number", "iban", "ssn")
K = TypeVar("K")


@dataclasses.dataclass
class Identifier:
    """Who says which words of the forget answers are unwanted."""

    kind: str = key("gold", "who says so")
    path: str | None = key(None, "precomputed: span file (.jsonl) or folder of released masks; "
        "words: text file, an entry a line")
    words: list[str] = key([], "words: strings as they stand in the answers, or re: and a regular "
        "expression")
    patterns: list[str] = key([], f"words: any of {', '.join(PATTERNS)}")
    rule: str = key("complement", "released masks: complement (unwanted = touches no common word, "
        "as released) or targets (touches a target)", choices=("complement", "targets"))
    grow: bool = key(False, "an unwanted passage with a capital letter or digit in it, or letters "
        "without case, is unwanted in all forget answers: samples share their entities")
    device: str = key("auto", "where its models run: cpu, cuda, cuda:1, ...; auto = cuda if any")
    dtype: str = key("float32", "dtype of their weights", choices=DTYPES)
    tokens_per_batch: int = key(4096, "tokens in one batch of theirs", at_least=16)

    def keys_of(self, keys: type[K]) -> K:
        """Return the section whose dataclass is `keys`, an identifier's."""
        return find_section(self, keys)

    def chosen_keys(self) -> Any:
        """Return the section of the chosen identifier."""
        chosen = registry.entries("identifier").get(self.kind)
        return self.keys_of(chosen.keys if chosen else NoKeys)

    def is_dry_run(self) -> bool:
        """Return whether the identifier only says what it would do."""
        return getattr(self.chosen_keys(), "dry_run", False)

    def find_problems(self, model: Model) -> list[str]:
        """Return the problems of the chosen identifier, one line each; `model`: section `model`."""
        chosen: Any = registry.entries("identifier").get(self.kind)
        return chosen.find_problems(self, model) if chosen else []


def _kind_field() -> tuple[str, Any, Any]:
    known: dict[str, Any] = dict(registry.entries("identifier"))
    text = "; ".join(f"{name}: {entry.title}" for name, entry in known.items())
    help = f"a word is unwanted where (by kind) {text}"
    return "kind", str, key("gold", help, choices=tuple(known))


def make_identifier(**values: Any) -> Identifier:
    """Return section `identifier` with these values, and the defaults of all other keys."""
    return registry.extend_section(Identifier, "identifier", _kind_field)(**values)
