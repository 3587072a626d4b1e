"""The span file: which words of each answer are unwanted, and the settings of the identifier that said so.

JSON Lines in UTF-8. The first line is the header,

    {"format": "tif-spans", "version": 1, "identifier": {settings}, "data": fingerprint of the samples, "samples": n}

and each of the n lines after it is one sample, spans as Unicode code points with exclusive ends:

    {"id": ..., "prompt": ..., "answer": ..., "unwanted": [[start, end], ...]}
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tif.data.samples import Sample, Span, fingerprint
from tif.utils.files import write_text

FORMAT = "tif-spans"
VERSION = 1

_REDO = "make the span file again"


def write(path: str | os.PathLike[str], samples: Iterable[Sample], identifier: Mapping[str, Any]) -> None:
    """Write the samples' unwanted spans, merged; a killed write leaves the old file as it was.

    Args:
        path: the file; its folder is made where missing.
        samples: identified samples, each id once.
        identifier: the settings that made the spans, JSON values only.

    Raises:
        ValueError: If a sample has no spans yet (`unwanted` is None) or an id occurs twice.
        TypeError: If a setting is no JSON value.
    """
    path, samples = pathlib.Path(path), tuple(samples)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "identifier": dict(identifier),
        "data": fingerprint(samples),
        "samples": len(samples),
    }
    rows: dict[str, dict[str, Any]] = {}
    for s in samples:
        if s.unwanted is None:
            raise ValueError(f"{path}: sample {s.id} has no unwanted spans (None); identify it before writing")
        if s.id in rows:
            raise ValueError(f"{path}: sample {s.id} occurs twice; ids must be unique")
        spans = [[span.start, span.end] for span in merge(s.unwanted)]
        rows[s.id] = {"id": s.id, "prompt": s.prompt, "answer": s.answer, "unwanted": spans}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *rows.values()))

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def read(path: str | os.PathLike[str], samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The given samples with the file's spans attached, in the given order.

    Rows are matched by id, and the file may hold more samples than asked for: spans made for forget10 serve forget05.

    Raises:
        ValueError: If the file is no complete span file of this version, a sample has no row, its row has another
            prompt or answer, or spans that are unsorted, overlap or leave the answer. One line, naming file and line.
    """
    rows = _rows(path)
    return tuple(_attach(path, rows, s) for s in samples)


def samples(path: str | os.PathLike[str]) -> tuple[Sample, ...]:
    """The file's own samples, with their spans and nothing else that the data had.

    Raises:
        ValueError: As `read`.
    """
    rows = _rows(path)
    found = []
    for where, row in rows.values():
        try:
            sample = Sample(row["id"], row["prompt"], row["answer"])
        except ValueError as err:
            raise ValueError(f"{where}: {err}") from None
        found.append(_attach(path, rows, sample))
    return tuple(found)


def _rows(path: str | os.PathLike[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """By id: where a row stands, and the row, its spans unchecked."""
    head, lines = _load(path)
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, line in enumerate(lines, start=2):  # as editors count: the header is line 1
        where = f"{path}: line {number}"
        row = _json(line)
        if not (isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("id", "prompt", "answer"))):
            raise ValueError(
                f"{where}: want a JSON object with id, prompt, answer and unwanted, got {_short(line.rstrip())}; "
                f"the file is damaged, {_REDO}"
            )
        if row["id"] in rows:
            raise ValueError(f"{where}: sample {row['id']} occurs a second time; remove one of its rows")
        rows[row["id"]] = where, row
    if len(rows) != head.get("samples"):
        raise ValueError(
            f"{path}: the header promises {head.get('samples')} samples, got {len(rows)}; the file is cut, {_REDO}"
        )
    return rows


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header line, with the settings under `identifier`.

    Raises:
        ValueError: If this is no span file of this version.
    """
    return _load(path)[0]


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same characters in sorted spans: overlapping or touching ones become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


def contrast(got: str, wanted: str) -> tuple[str, str]:
    """Both texts quoted for an error message, shortened to where they first differ."""
    at = max(0, len(os.path.commonprefix((got, wanted))) - 20)
    return _short(got, at), _short(wanted, at)


def _load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """The checked header and the lines after it."""
    try:
        # Lines of a file end at newlines only; str.splitlines would also split at U+2028 inside an answer.
        with open(path, encoding="utf-8") as file:
            first, *rest = list(file) or [""]
    except OSError as err:
        raise ValueError(f"{path}: cannot read the span file ({err.strerror}); check the path, or {_REDO}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"{path}: not a span file (no UTF-8: {err.reason}); {_REDO}") from err
    head = _json(first)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(
            f'{path}: not a span file: line 1 must be a header with "format": "{FORMAT}", '
            f"got {_short(first.rstrip())}; {_REDO}"
        )
    if head.get("version") != VERSION:
        raise ValueError(
            f"{path}: span file of version {head.get('version')!r}, this tif reads {VERSION}; update tif, or {_REDO}"
        )
    return head, rest


def _attach(path: str | os.PathLike[str], rows: Mapping[str, tuple[str, dict[str, Any]]], sample: Sample) -> Sample:
    """The sample with the spans of its row."""
    if sample.id not in rows:
        raise ValueError(
            f"{path}: no row for sample {sample.id} among its {len(rows)} samples; "
            "run python -m tif.identify on the data you use here"
        )
    where, row = rows[sample.id]
    for key, wanted in (("prompt", sample.prompt), ("answer", sample.answer)):
        if row[key] != wanted:
            ours, theirs = contrast(row[key], wanted)
            raise ValueError(
                f"{where}: {key} differs: the file has {ours}, sample {sample.id} has {theirs}; "
                "spans of another version of the data? run python -m tif.identify on this one"
            )
    pairs = row.get("unwanted")
    if not isinstance(pairs, list):
        raise ValueError(f"{where}: unwanted: want a list of [start, end], got {_short(str(pairs))}; {_REDO}")
    spans: list[Span] = []
    for pair in pairs:
        after = spans[-1].end if spans else 0
        if not (isinstance(pair, list) and [type(edge) for edge in pair] == [int, int]) or not (
            after <= pair[0] < pair[1] <= len(sample.answer)
        ):
            raise ValueError(
                f"{where}: unwanted: want [start, end] with {after} <= start < end <= {len(sample.answer)} "
                f"(sorted, no overlap, inside the answer), got {_short(str(pair))}; {_REDO}"
            )
        spans.append(Span(*pair))
    return dataclasses.replace(sample, unwanted=tuple(spans))


def _json(line: str) -> Any:
    """The value of a line, None where it is no JSON: both fail the caller's check for an object."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _short(text: str, start: int = 0, width: int = 60) -> str:
    """The text from `start` on, cut and quoted."""
    end = start + width
    return repr(("..." if start else "") + text[start:end] + ("..." if end < len(text) else ""))
