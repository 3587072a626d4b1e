"""`key`: what the fields of all configuration sections are made with."""

import dataclasses
from typing import Any, TypeVar

K = TypeVar("K")
RULES = {"choices", "or_own", "above", "at_least", "at_most"}


def key(default: Any, help: str, **rules: Any) -> Any:
    """Return a dataclass field that holds a configuration key.

    Args:
        default: the value where nothing else is given; lists and mappings are copied.
        help: the sentence that `--help` and configs/base.yaml show.
        rules: `choices` (allowed values), `or_own` (also module:function), `above` (must be >),
            `at_least`, `at_most`. `tif.config.check` checks them.
    """
    assert rules.keys() <= RULES, rules
    metadata = {"help": help, **rules}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class NoKeys:
    """The keys of something registered that has none of its own."""


def find_section(settings: Any, keys: type[K]) -> K:
    """Return the section of `settings` whose dataclass is `keys`; defaults where it has none."""
    for field in dataclasses.fields(settings):
        section = getattr(settings, field.name)
        if type(section) is keys:
            return section
    return keys()
