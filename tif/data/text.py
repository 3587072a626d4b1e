"""Read your own documents or question/answer pairs from text or JSON files (`data.benchmark=text`).

They are evaluated with MUSE's metrics. Called by `benchmarks`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.muse import KNOWMEM, VERBMEM
from tif.data.samples import Benchmark, Sample, Task

SUFFIXES = (".txt", ".jsonl", ".json")
PASSAGE_CHARACTERS = 4000  # length of a passage of a document, as in MUSE
MIN_CHARACTERS = 40  # a shorter passage is not asked to be continued
PROMPT_SHARE = 0.75  # of a passage is the prompt of VerbMem, the rest the answer

# MUSE's tasks without its prompts and examples: the prompt is that of the configuration.
TASKS = {
    "verbmem": VERBMEM,
    "knowmem": Task(stops=KNOWMEM.stops),
    "privleak": Task(new_tokens=0),
}


def read_texts(path: str) -> Benchmark:
    """Read a forget file, or a folder with a forget, a retain and a holdout file.

    A file is a .txt (one document), a .jsonl (one row a line) or a .json (a list of rows). A row
    is a text, {"text": ...} or {"question": ..., "answer": ...}; "prompt" may stand for
    "question". A document becomes a sample without a prompt.

    Args:
        path: a file, which is the forget set; or a folder with forget.* and optionally retain.*
            and holdout.*.

    Raises:
        ValueError: For a missing or empty file, two files of one set or a row of another form; one
            line that names it.
    """
    place = Path(path).expanduser()
    retain: tuple[Sample, ...] = ()
    holdout: tuple[Sample, ...] = ()
    if place.is_file():
        name = place.stem
        forget = _read_file(place, "forget")
    elif place.is_dir():
        name = place.resolve().name
        forget = _read_set(place, "forget")
        retain = _read_set(place, "retain")
        holdout = _read_set(place, "holdout")
    else:
        raise ValueError(
            f"data.path: no file or folder {path}; want a text file or a folder with forget.txt "
            "in it"
        )
    if not forget:
        raise ValueError(
            f"data.path: {path} has no forget file; want forget.txt, forget.jsonl or forget.json"
        )
    sets = {
        "verbmem_forget": _make_continuations(forget),
        "verbmem_retain": _make_continuations(retain),
        "knowmem_forget": tuple(sample for sample in forget if sample.prompt),
        "knowmem_retain": tuple(sample for sample in retain if sample.prompt),
        "privleak_forget": _make_passages(forget) if holdout else (),
        "privleak_holdout": _make_passages(holdout),
    }
    sets = {set_name: samples for set_name, samples in sets.items() if samples}
    tasks = {set_name: TASKS[set_name.partition("_")[0]] for set_name in sets}
    return Benchmark(f"text/{name}", forget, retain, sets, tasks=tasks)


def _make_passages(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return documents in passages that end between words, and questions unchanged."""
    passages = []
    for sample in samples:
        if sample.prompt:
            passages.append(sample)
            continue
        start, number = 0, 0
        while start < len(sample.answer):
            end = _find_word_border(sample.answer, start, start + PASSAGE_CHARACTERS)
            text = sample.answer[start:end]
            if text.strip():
                passages.append(Sample(f"{sample.id}/{number}", "", text))
                number += 1
            start = end
    return tuple(passages)


def _make_continuations(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Cut each passage of the documents in two: the beginning is the prompt, the rest the answer.

    The blank between them belongs to the answer.
    """
    continuations = []
    for passage in _make_passages(sample for sample in samples if not sample.prompt):
        text = passage.answer
        border = _find_word_border(text, 0, int(len(text) * PROMPT_SHARE))
        if len(text) >= MIN_CHARACTERS and text[border:].strip():
            continuations.append(Sample(passage.id, text[:border], text[border:]))
    return tuple(continuations)


def _find_word_border(text: str, start: int, end: int) -> int:
    """Return the last place up to `end` where a blank follows a word; `end` if there is none."""
    if end >= len(text):
        return len(text)
    last = 0
    for blank in re.finditer(r"(?<=\S)\s", text[start : end + 1]):
        last = blank.start()
    return start + last if last else end


def _read_set(folder: Path, name: str) -> tuple[Sample, ...]:
    """Return the samples of a set; none where the folder has no file for it."""
    files = []
    for suffix in SUFFIXES:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            files.append(file)
    if len(files) > 1:
        raise ValueError(
            f"data.path: {files[0]} and {files[1].name} both hold the {name} set; want one"
        )
    return _read_file(files[0], name) if files else ()


def _read_file(file: Path, name: str) -> tuple[Sample, ...]:
    samples = []
    for number, (place, row) in enumerate(_read_rows(file)):
        try:
            prompt, answer = _read_fields(row)
            samples.append(Sample(f"{name}/{number}", prompt, answer))
        except ValueError as error:
            raise ValueError(f"data.path: {place}: {error}") from None
    return tuple(samples)


def _read_rows(file: Path) -> Sequence[tuple[str, Any]]:
    """Return the rows of a file, each with its place for errors."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"data.path: {file} is no {', '.join(SUFFIXES)} file")
    try:
        content = file.read_text(encoding="utf-8")
        if file.suffix == ".txt":
            return [(str(file), content)]
        if file.suffix == ".jsonl":
            return _parse_lines(content, file)
        rows = json.loads(content)
        if not isinstance(rows, list):
            raise ValueError(f"want a list of rows, got {type(rows).__name__}")
        return [(f"{file}[{i}]", row) for i, row in enumerate(rows)]
    except (OSError, ValueError) as error:
        raise ValueError(f"data.path: cannot read {file} ({one_line(error)})") from None


def _parse_lines(content: str, file: Path) -> list[tuple[str, Any]]:
    rows = []
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            rows.append((f"{file}:{number}", json.loads(line)))
    return rows


def _read_fields(row: Any) -> tuple[str, str]:
    """Return prompt and answer of a row; a document has the prompt ""."""
    if isinstance(row, str):
        return "", row
    if isinstance(row, dict):
        answer, text = row.get("answer"), row.get("text")
        for key in ("question", "prompt"):
            prompt = row.get(key)
            if isinstance(prompt, str) and isinstance(answer, str):
                return prompt, answer
        if isinstance(text, str):
            return "", text
    raise ValueError(
        f'want a text, {{"text": ...}} or {{"question": ..., "answer": ...}}, got {str(row)[:60]!r}'
    )
