"""`text`: your own documents or question/answer pairs, from files of plain text or JSON, with MUSE's metrics."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.muse import KNOWMEM, VERBMEM
from tif.data.samples import Benchmark, Sample, Task

SUFFIXES = (".txt", ".jsonl", ".json")
PASSAGE = 4000  # characters of a document that are one passage, MUSE's size
SHORTEST = 40  # characters of a passage that is asked to be gone on with
CONTINUED = 0.75  # of a passage is the prompt of VerbMem, the rest its target

# As MUSE's tasks, but for the prompt, which is the configuration's, and no examples come before a question.
KNOWMEM_OWN = Task(stops=KNOWMEM.stops)
PRIVLEAK_OWN = Task(new_tokens=0)
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
        found = {"forget": tuple(_read(where, "forget")), "retain": (), "holdout": ()}
        name = where.stem
    elif where.is_dir():
        found = {name: _samples(where, name) for name in ("forget", "retain", "holdout")}
        name = where.resolve().name
    else:
        raise ValueError(f"data.path: no file or folder {path}; want a text file or a folder with forget.txt in it")
    if not found["forget"]:
        raise ValueError(f"data.path: {path} has no forget file; want forget.txt, forget.jsonl or forget.json")
    sets = {name: own for name, own in _sets(**found).items() if own}
    tasks = {name: _TASKS[name.partition("_")[0]] for name in sets}
    return Benchmark(f"text/{name}", found["forget"], found["retain"], sets, tasks=tasks)


_TASKS = {"verbmem": VERBMEM, "knowmem": KNOWMEM_OWN, "privleak": PRIVLEAK_OWN}


def _sets(
    forget: tuple[Sample, ...], retain: tuple[Sample, ...], holdout: tuple[Sample, ...]
) -> dict[str, tuple[Sample, ...]]:
    """MUSE's evaluation sets: documents go on word for word, questions are asked, all are told from the holdout."""
    return {
        "verbmem_forget": _continued(forget),
        "verbmem_retain": _continued(retain),
        "knowmem_forget": tuple(s for s in forget if s.prompt),
        "knowmem_retain": tuple(s for s in retain if s.prompt),
        "privleak_forget": tuple(_passages(forget)) if holdout else (),
        "privleak_holdout": tuple(_passages(holdout)),
    }


def _passages(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Documents in passages of up to `PASSAGE` characters that end between words; questions as they are."""
    for sample in samples:
        if sample.prompt:
            yield sample
            continue
        start, number = 0, 0
        while start < len(sample.answer):
            end = _border(sample.answer, start, start + PASSAGE)
            if sample.answer[start:end].strip():
                yield Sample(f"{sample.id}/{number}", "", sample.answer[start:end])
                number += 1
            start = end


def _continued(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Each passage of the documents cut in two: the beginning is the prompt, what follows, blank first, the answer."""
    found = []
    for passage in _passages(s for s in samples if not s.prompt):
        text = passage.answer
        border = _border(text, 0, int(len(text) * CONTINUED))
        if len(text) >= SHORTEST and text[border:].strip():
            found.append(Sample(passage.id, text[:border], text[border:]))
    return tuple(found)


def _border(text: str, start: int, end: int) -> int:
    """The last place up to `end` where a blank begins a new word; `end` itself where there is none."""
    if end >= len(text):
        return len(text)
    places = [match.start() for match in re.finditer(r"(?<=\S)\s", text[start : end + 1])]
    return start + places[-1] if places and places[-1] else end


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
        raise ValueError(f"data.path: cannot read {file} ({one_line(error)})") from None
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
