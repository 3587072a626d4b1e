"""The span file: which words of each answer are unwanted, and the settings that made them.

`tif identify` and runs write it; `identifier.kind=precomputed`, `compare` and `show` read
it. JSON Lines in UTF-8. The first line is the header,

    {"format": "tif-spans", "version": 1, "identifier": {settings},
     "data": fingerprint of the samples, "samples": n}

and each of the n lines after it is one sample, spans as Unicode code points with exclusive ends:

    {"id": ..., "prompt": ..., "answer": ..., "unwanted": [[start, end], ...]}
"""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tif.data.samples import Sample, Span, fingerprint, merge_spans
from tif.utils.files import parse_json, read_bytes, write_text

FORMAT = "tif-spans"
VERSION = 1

Path = str | os.PathLike[str]
_Row = tuple[str, dict[str, Any]]  # "file: line n" for messages, and the row with unchecked spans
_REMAKE = "make the span file again"


def write_spans(path: Path, samples: Iterable[Sample], identifier: Mapping[str, Any]) -> None:
    """Write the samples' unwanted spans, merged, and the settings that made them (JSON values).

    A killed write leaves the old file as it was.

    Raises:
        ValueError: If a sample has no spans yet (`unwanted` is None) or an id occurs twice.
        TypeError: If a setting is no JSON value.
    """
    path, samples = pathlib.Path(path), tuple(samples)
    header = {
        "format": FORMAT, "version": VERSION, "identifier": dict(identifier),
        "data": fingerprint(samples), "samples": len(samples),
    }  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for sample in samples:
        if sample.unwanted is None:
            problem = "has no unwanted spans (None); identify it before writing"
            raise ValueError(f"{path}: sample {sample.id} {problem}")
        if sample.id in rows:
            raise ValueError(f"{path}: sample {sample.id} occurs twice; ids must be unique")
        spans = [[span.start, span.end] for span in merge_spans(sample.unwanted)]
        texts = {"id": sample.id, "prompt": sample.prompt, "answer": sample.answer}
        rows[sample.id] = texts | {"unwanted": spans}
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in (header, *rows.values())]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(lines))


def attach_spans(path: Path, samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the given samples with the file's spans, matched by id.

    The file may hold more samples: spans of forget10 serve forget05.

    Raises:
        ValueError: If the file is no complete span file of this version, a sample has no row, its
            row has another prompt or answer, or spans that are unsorted, overlap or leave the
            answer. One line, naming file and line.
    """
    rows = _read_rows(path)
    identified = []
    for sample in samples:
        if sample.id not in rows:
            raise ValueError(
                f"{path}: no row for sample {sample.id} among its {len(rows)} samples; "
                "run tif identify on the data you use here"
            )
        place, row = rows[sample.id]
        for key, expected in (("prompt", sample.prompt), ("answer", sample.answer)):
            if row[key] != expected:
                in_file, in_data = quote_difference(row[key], expected)
                raise ValueError(
                    f"{place}: {key} differs: the file has {in_file}, sample {sample.id} has "
                    f"{in_data}; spans of another version of the data? "
                    "run tif identify on this one"
                )
        identified.append(dataclasses.replace(sample, unwanted=_check_spans(place, row)))
    return tuple(identified)


def read_samples(path: Path) -> tuple[Sample, ...]:
    """Return the file's own samples, with their spans and nothing else that the data had.

    Raises:
        ValueError: As `attach_spans`.
    """
    samples = []
    for place, row in _read_rows(path).values():
        spans = _check_spans(place, row)
        try:
            samples.append(Sample(row["id"], row["prompt"], row["answer"], spans))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    return tuple(samples)


def read_header(path: Path) -> dict[str, Any]:
    """Return the header line, with the settings under `identifier`.

    Raises:
        ValueError: If this is no span file of this version.
    """
    return _read_lines(path)[0]


def quote_difference(first: str, second: str) -> tuple[str, str]:
    """Return both texts quoted for an error message, shortened to where they first differ."""
    start = max(0, len(os.path.commonprefix((first, second))) - 20)
    return _quote(first, start), _quote(second, start)


def _read_rows(path: Path) -> dict[str, _Row]:
    """Return the rows by sample id."""
    header, lines = _read_lines(path)
    rows: dict[str, _Row] = {}
    for number, line in enumerate(lines, start=2):  # as editors count: the header is line 1
        place, row = f"{path}: line {number}", _parse_object(line)
        if not all(isinstance(row.get(key), str) for key in ("id", "prompt", "answer")):
            wanted = "want a JSON object with id, prompt, answer and unwanted"
            raise _refuse(place, f"{wanted}, got {_quote(line.rstrip())}; the file is damaged")
        if row["id"] in rows:
            problem = "occurs a second time; remove one of its rows"
            raise ValueError(f"{place}: sample {row['id']} {problem}")
        rows[row["id"]] = place, row
    if len(rows) != header.get("samples"):
        counts = f"the header promises {header.get('samples')} samples, got {len(rows)}"
        raise _refuse(path, f"{counts}; the file is cut")
    return rows


def _read_lines(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the checked header and the lines after it."""
    try:
        # Lines of a file end at newlines only; str.splitlines would also split at U+2028.
        file = io.TextIOWrapper(io.BytesIO(read_bytes(pathlib.Path(path))), encoding="utf-8")
        first, *lines = list(file) or [""]
    except OSError as error:
        problem = f"cannot read the span file ({error.strerror}); check the path, or {_REMAKE}"
        raise ValueError(f"{path}: {problem}") from error
    except UnicodeDecodeError as error:
        raise _refuse(path, f"not a span file (no UTF-8: {error.reason})") from error
    header = _parse_object(first)
    if header.get("format") != FORMAT:
        wanted = f'line 1 must be a header with "format": "{FORMAT}"'
        raise _refuse(path, f"not a span file: {wanted}, got {_quote(first.rstrip())}")
    if header.get("version") != VERSION:
        version = f"span file of version {header.get('version')!r}, this tif reads {VERSION}"
        raise ValueError(f"{path}: {version}; update tif, or {_REMAKE}")
    return header, lines


def _check_spans(place: str, row: dict[str, Any]) -> tuple[Span, ...]:
    """Return a row's spans; refuse any but [start, end], sorted, apart and inside the answer."""
    pairs, length = row.get("unwanted"), len(row["answer"])
    if not isinstance(pairs, list):
        raise _refuse(place, f"unwanted: want a list of [start, end], got {_quote(str(pairs))}")
    spans: list[Span] = []
    for pair in pairs:
        least = spans[-1].end if spans else 0
        is_pair = isinstance(pair, list) and [type(offset) for offset in pair] == [int, int]
        if not is_pair or not least <= pair[0] < pair[1] <= length:
            wanted = f"[start, end] with {least} <= start < end <= {length}"
            problem = f"want {wanted} (sorted, no overlap, inside the answer)"
            raise _refuse(place, f"unwanted: {problem}, got {_quote(str(pair))}")
        spans.append(Span(*pair))
    return tuple(spans)


def _refuse(place: Path, problem: str) -> ValueError:
    return ValueError(f"{place}: {problem}; {_REMAKE}")


def _parse_object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line; empty where it is none."""
    try:
        value = parse_json(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _quote(text: str, start: int = 0, width: int = 60) -> str:
    """Return the text from `start` on, cut to `width` and quoted."""
    before, after = "..." if start else "", "..." if start + width < len(text) else ""
    return repr(before + text[start : start + width] + after)
