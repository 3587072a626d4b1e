"""The schema's rules for single keys: list, choices, bounds, nearest name. Used by load.py."""

import dataclasses
import difflib
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from tif.config.errors import shorten
from tif.config.registry import is_own

MOST = 10**15  # no key counts further
BOUNDS = {"above": (">", operator.gt), "at_least": (">=", operator.ge),
          "at_most": ("<=", operator.le)}


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


def brief(value: Any) -> str:
    """Return a value for an error's line: about 80 characters at most, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return shorten(text, 80)


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


def nearest(name: Any, known: Sequence[str]) -> str:
    """Return "; did you mean X?" with the nearest known names, if any.

    Those that the name begins (bf16: bf16-mixed, bf16-true), else the nearest name or last part of
    a name.
    """
    begun = [key for key in known if key.startswith(f"{name}-")]
    if begun:
        return f"; did you mean {' or '.join(begun)}?"
    by_last_part = {key.rsplit(".", 1)[-1]: key for key in known}
    last_part = str(name).rsplit(".", 1)[-1]
    close = difflib.get_close_matches(str(name), known, 1, 0.6)
    if not close:
        parts = difflib.get_close_matches(last_part, list(by_last_part), 1, 0.75)
        close = [by_last_part[part] for part in parts]
    return f"; did you mean {close[0]}?" if close else ""
