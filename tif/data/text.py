"""`text`: your own documents or question/answer pairs, from files of plain text or JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tif.data.samples import Benchmark, Sample

SUFFIXES = (".txt", ".jsonl", ".json")
_WANT = 'want a text, {"text": ...} or {"question": ..., "answer": ...}'


def text(path: str) -> Benchmark:
    """Read forget, retain and holdout files.

    A file is a .txt (one document), a .jsonl (a row a line) or a .json (a list of rows). A row is a text, {"text": ...}
    or {"question": ..., "answer": ...}; "prompt" serves for "question". A document is a sample without a prompt.

    Args:
        path: one file, which is the forget set; or a folder with forget.* and, if you like, retain.* and holdout.*.

    Raises:
        ValueError: A missing, empty or doubled file, a row of another shape; one line, naming it.
    """
    where = Path(path).expanduser()
    if where.is_file():
        return Benchmark(f"text/{where.stem}", tuple(_read(where, "forget")), (), {})
    if not where.is_dir():
        raise ValueError(f"data.path: no file or folder {path}; want a text file or a folder with forget.txt in it")
    found = {name: _samples(where, name) for name in ("forget", "retain", "holdout")}
    if not found["forget"]:
        raise ValueError(f"data.path: {path} has no forget file; want forget.txt, forget.jsonl or forget.json")
    sets = {name: samples for name, samples in found.items() if samples}
    return Benchmark(f"text/{where.resolve().name}", found["forget"], found["retain"], sets)


def _samples(folder: Path, name: str) -> tuple[Sample, ...]:
    files = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    if len(files) > 1:
        raise ValueError(f"data.path: {files[0]} and {files[1].name} both hold the {name} set; want one")
    return tuple(_read(files[0], name)) if files else ()


def _read(file: Path, name: str) -> Iterator[Sample]:
    for number, (where, row) in enumerate(_rows(file)):
        prompt, answer = _prompt_and_answer(row, where)
        try:
            yield Sample(f"{name}/{number}", prompt, answer)
        except ValueError as error:
            raise ValueError(f"data.path: {where}: {error}") from None


def _rows(file: Path) -> list[tuple[str, Any]]:
    """Where each row stands, and the row."""
    try:
        content = file.read_text(encoding="utf-8")
        if file.suffix == ".txt":
            return [(str(file), content)]
        if file.suffix == ".jsonl":
            lines = [(n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
            return [(f"{file}:{n}", json.loads(line)) for n, line in lines]
        if file.suffix == ".json":
            rows = json.loads(content)
            if not isinstance(rows, list):
                raise ValueError(f"want a list of rows, got {type(rows).__name__}")
            return [(f"{file}[{n}]", row) for n, row in enumerate(rows)]
    except (OSError, ValueError) as error:
        raise ValueError(f"data.path: cannot read {file} ({str(error).splitlines()[0]})") from None
    raise ValueError(f"data.path: {file} is no {', '.join(SUFFIXES)} file")


def _prompt_and_answer(row: Any, where: str) -> tuple[str, str]:
    if isinstance(row, str):
        return "", row
    if isinstance(row, dict):
        for prompt, answer in (("question", "answer"), ("prompt", "answer"), (None, "text")):
            values = (row.get(prompt) if prompt else ""), row.get(answer)
            if all(isinstance(value, str) for value in values):
                return str(values[0]), str(values[1])
    raise ValueError(f"data.path: {where}: {_WANT}, got {str(row)[:60]!r}")
