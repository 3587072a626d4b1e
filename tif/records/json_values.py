"""JSON from outside, read with errors that name the file and the key."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; NaN and infinity anywhere in it, and anything that is not a JSON object, are refused."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON, perhaps cut short ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: want a JSON object, got {content!r:.40}")
    for place in _not_finite(content, ""):
        raise ValueError(f"{path}: {place}, want a finite number")
    return content


def entry(fields: Mapping[str, Any], key: str, wanted: type[T], where: str) -> T:
    """Return `fields[key]`, which must be there and of the wanted type (`where`: what an error line starts with)."""
    value = fields.get(key)
    if not isinstance(value, wanted) or isinstance(value, bool):
        got = f"{value!r:.40}" if key in fields else "nothing"
        raise ValueError(f"{where}{key}: want {wanted.__name__}, got {got}")
    return value


def text(value: Any, where: str) -> str:
    """Return `value`, which must be a text (`where`: what an error line starts with)."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: want a text, got {value!r:.40}")
    return value


def number(value: Any, where: str) -> float:
    """Return `value`, which must be a number (`where`: what an error line starts with)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: want a number, got {value!r:.40}")
    return float(value)


def numbers(value: Any, where: str) -> tuple[float, ...]:
    """Return `value`, which must be a list of numbers, as a tuple (`where`: what an error line starts with)."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: want a list of numbers, got {value!r:.40}")
    return tuple(number(item, f"{where}/{i}") for i, item in enumerate(value))


def _not_finite(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}"
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, f"{place}/{key}" if place else str(key))
