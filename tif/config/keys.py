"""`key`: what the fields of all schemas are made with."""

import dataclasses
from typing import Any


def key(default: Any, help: str, **rules: Any) -> Any:
    """A configuration key.

    Rules: `choices` (allowed values; with `or_own` also module:function), `above` (must be >), `at_least`, `at_most`.
    """
    unknown = set(rules) - {"choices", "or_own", "above", "at_least", "at_most"}
    assert not unknown, unknown
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help, **rules})
    return dataclasses.field(default=default, metadata={"help": help, **rules})
