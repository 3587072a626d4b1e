"""The keys of a configuration: how a section declares one, how they are listed and checked.

A check of a single key knows its list of choices and its bounds. Used by load.py.
"""

import dataclasses
import json
import math
import operator
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from tif.config.errors import brief, nearest
from tif.config.registry import is_own

K = TypeVar("K")
MOST = 10**15  # no key counts further
BOUNDS = {"above": (">", operator.gt), "at_least": (">=", operator.ge),
          "at_most": ("<=", operator.le)}
RULES = {"choices", "or_own", "above", "at_least", "at_most"}


def key(default: Any, help: str, **rules: Any) -> Any:
    """Return a dataclass field that holds a configuration key.

    Args:
        default: the value where nothing else is given; lists and mappings are copied.
        help: the sentence that `--help` and configs/base.yaml show.
        rules: `choices` (allowed values), `or_own` (also module:function), `above` (must be >),
            `at_least`, `at_most`. `check_values` checks them.
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


def list_keys(section: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, str]]:
    """Yield the dotted name, field and value (as YAML writes it) of each key of a section."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from list_keys(value, f"{prefix}{field.name}.")
        else:
            is_plain = isinstance(value, str) and value.replace("-", "").isidentifier()
            # JSON is YAML too, so that a line break in a text survives.
            yield f"{prefix}{field.name}", field, str(value) if is_plain else json.dumps(value)


def check_values(section: Any, prefix: str = "") -> list[str]:
    """Return the values that break a choice or bound of their key, one line each."""
    problems = []
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            problems += check_values(value, f"{key}.")
        elif value is not None and (problem := _find_problem(value, field.metadata)):
            problems.append(f"{key}: {problem}")
    return problems


def _find_problem(value: Any, rules: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value under the rules of its key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            problem = _find_problem(inner, {})
            if problem:
                return f"{name}: {problem}"
        return None
    if isinstance(value, list):
        problems = (_find_problem(inner, {}) for inner in value)
        return next((problem for problem in problems if problem), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"want a finite number, got {value}"
    if isinstance(value, int) and abs(value) > MOST:
        return f"want a number up to {MOST:.0e}, got {brief(value)}"
    choices, or_own = rules.get("choices"), rules.get("or_own")
    if choices and value not in choices and not (or_own and is_own(value)):
        hint = " or your own module:function" if or_own else ""
        got = f"got {brief(value)}{nearest(value, choices)}"
        return f"want one of {', '.join(choices)}{hint}, {got}"
    for name, (sign, holds) in BOUNDS.items():
        if name in rules and not holds(value, rules[name]):
            return f"must be {sign} {rules[name]}, got {value}"
    return None


def type_name(kind: Any) -> str:
    """Return a key's type as help and errors name it: int, str or null, mapping."""
    if "dict" in str(kind):
        return "mapping"
    kinds = get_args(kind) or (kind,)
    return " or ".join("null" if inner is type(None) else inner.__name__ for inner in kinds)
