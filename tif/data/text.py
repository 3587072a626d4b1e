"""Read your own documents or question/answer pairs from text or JSON files (`data.benchmark=text`).

They are evaluated with MUSE's metrics. Called by `benchmarks`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tif.data.muse import STOPS, VERBMEM
from tif.data.rows import make_samples, read_rows
from tif.data.samples import Benchmark, Sample, Task

SUFFIXES = (".txt", ".jsonl", ".json")
PASSAGE_CHARACTERS = 4000  # length of a passage of a document, as in MUSE
MIN_CHARACTERS = 40  # a shorter passage is not asked to be continued
PROMPT_SHARE = 0.75  # of a passage is the prompt of VerbMem, the rest the answer

# MUSE's tasks without its prompts and examples: the prompt is that of the configuration.
TASKS = {"verbmem": VERBMEM, "knowmem": Task(stops=STOPS), "privleak": Task(new_tokens=0)}


def read_texts(path: str) -> Benchmark:
    """Read a forget file, or a folder with a forget, a retain and a holdout file.

    A single file is the forget set; a folder has forget.* and optionally retain.* and holdout.*.
    A file is a .txt (one document), a .jsonl (one row a line) or a .json (a list of rows). A row
    is a text, {"text": ...} or {"question": ..., "answer": ...}; "prompt" may stand for
    "question". A document becomes a sample without a prompt.

    Raises:
        ValueError: For a missing or empty file, two files of one set or a row of another form.
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
        wanted = "want a text file or a folder with forget.txt in it"
        raise ValueError(f"data.path: no file or folder {path}; {wanted}")
    if not forget:
        wanted = "want forget.txt, forget.jsonl or forget.json"
        raise ValueError(f"data.path: {path} has no forget file; {wanted}")
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
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    files = [path for path in paths if path.is_file()]
    if len(files) > 1:
        both = f"{files[0]} and {files[1].name}"
        raise ValueError(f"data.path: {both} both hold the {name} set; want one")
    return _read_file(files[0], name) if files else ()


def _read_file(file: Path, name: str) -> tuple[Sample, ...]:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"data.path: {file} is no {', '.join(SUFFIXES)} file")

    def make(number: int, row: Any) -> Sample:
        return Sample(f"{name}/{number}", *_read_fields(row))

    return make_samples(read_rows(file), str(file), make)


def _read_fields(row: Any) -> tuple[str, str]:
    """Return prompt and answer of a row; a document has the prompt ""."""
    if isinstance(row, str):
        return "", row
    if isinstance(row, dict):
        prompt, answer = row.get("question", row.get("prompt")), row.get("answer")
        if isinstance(prompt, str) and isinstance(answer, str):
            return prompt, answer
        if isinstance(row.get("text"), str):
            return "", row["text"]
    wanted = '{"text": ...} or {"question": ..., "answer": ...}'
    raise ValueError(f"want a text, {wanted}, got {str(row)[:60]!r}")
