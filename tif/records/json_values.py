"""Read JSON from outside with one-line errors that name the file and the key.

pydantic checks the values; its errors, which take several lines, become one.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from tif.utils.files import read_bytes

T = TypeVar("T")

# What is wanted, by pydantic's type of error; others keep pydantic's message.
WANTED = {
    "dataclass_type": "want an object",
    "dict_type": "want an object",
    "list_type": "want a list",
    "tuple_type": "want a list",
    "string_type": "want a text",
    "float_type": "want a number",
    "int_type": "want a whole number",
    "too_short": "want one or more",
    "greater_than_equal": "want at least 0",
    "less_than_equal": "want at most 1",
    "finite_number": "want a finite number",
    "string_pattern_mismatch": "want a text that is not blank",
}


def _read_marks(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(map({"0": False, "1": True}.get, value))
    return tuple(value) if isinstance(value, list) else value


def _write_marks(marks: Sequence[bool]) -> str:
    return "".join("1" if mark else "0" for mark in marks)


# One truth value a token: in a file a text with a character for each.
Marks = Annotated[tuple[bool, ...], BeforeValidator(_read_marks), PlainSerializer(_write_marks)]


class _Repeated(dict):
    """A JSON object in which a key stands twice; `key` is the first of those."""

    key: str


def load_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: If it is no JSON object, or anywhere in it stands NaN, infinity or a key that
            its object has already.
    """
    text = read_bytes(path)
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_make_object)
        problem = _find_problem(content, "")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON, perhaps cut short ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: want a JSON object, got {content!r:.40}")
    if problem:
        raise ValueError(f"{path}: {problem}")
    return content


def _make_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    repeated = _Repeated(content)
    counts = Counter(key for key, _ in pairs)
    repeated.key = next(key for key, count in counts.items() if count > 1)
    return repeated


def parse(kind: Any, value: Any, file: Path, *keys: str) -> Any:
    """Return a JSON value as a dataclass or a container such as list[str].

    Nothing is converted, further keys are ignored. A ValueError names the file and the keys that
    lead to the value.
    """
    try:
        # As JSON, because only then a list counts as a tuple and an object as a dataclass.
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as errors:
        error = errors.errors()[0]
        place = f"{file}: " + "/".join([*keys, *map(str, error["loc"])])
        if error["type"] == "missing":
            raise ValueError(f"{place} is missing") from None
        if error["type"] == "value_error":
            raise ValueError(f"{place}: {error['ctx']['error']}") from None
        wanted = WANTED.get(error["type"], error["msg"])
        raise ValueError(f"{place}: {wanted}, got {error['input']!r:.40}") from None


def to_fields(value: Any) -> dict[str, Any]:
    """Return a dataclass as the object that `parse` reads."""
    kind: Any = type(value)
    return dict(_adapter(kind).dump_python(value))


def to_json(content: Any, indent: int | None = None) -> str:
    """Return JSON; raise ValueError where a number is not finite."""
    return json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False)


def to_lines(content: Mapping[str, Any]) -> str:
    """Return a JSON object that stands in another one, with a line for each key."""
    lines = [f"  {to_json(key)}: {to_json(fields)}" for key, fields in content.items()]
    return "{\n" + ",\n".join(lines) + "\n }"


@functools.cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def _find_problem(value: Any, place: str) -> str | None:
    """Return the first number that is not finite, or key that stands twice, with its place."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place} is {value}, want a finite number"
    if isinstance(value, _Repeated):
        return f"{place}/{value.key}".lstrip("/") + " stands there twice, want each key once"
    items = dict(enumerate(value)) if isinstance(value, list) else value
    for key, item in items.items() if isinstance(items, dict) else ():
        problem = _find_problem(item, f"{place}/{key}" if place else str(key))
        if problem:
            return problem
    return None
