"""Read your own documents or question/answer pairs from text or JSON files (`data.benchmark=text`).

They are evaluated with MUSE's metrics, and every word of the forget and retain texts is scored.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from tif.config.data import Data
from tif.config.keys import key
from tif.data.benchmarks import benchmark
from tif.data.benchmarks.muse import STOPS, VERBMEM
from tif.data.rows import DataRow, make_samples, read_rows
from tif.data.samples import Benchmark, Sample, Span, Task, cut_spans, merge_spans

SUFFIXES = (".txt", ".jsonl", ".json")
PASSAGE_CHARACTERS = 4000  # length of a passage of a document, as in MUSE
MIN_CHARACTERS = 40  # a shorter passage is not asked to be continued
PROMPT_SHARE = 0.75  # of a passage is the prompt of VerbMem, the rest the answer

# MUSE's tasks without its prompts and examples: the prompt is that of the configuration.
SCORED = Task(new_tokens=0)
TASKS = {"verbmem": VERBMEM, "knowmem": Task(stops=STOPS), "privleak": SCORED,
         "forget": SCORED, "retain": SCORED}


# How a .txt is cut into documents by data.split_text.
BORDERS = {"document": None, "paragraph": r"\n[^\S\n]*\n\s*", "line": r"\n"}
_MARK = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)
_UNCLOSED_MARK = re.compile(r"\[\[(?!(?:(?!\[\[).)+?\]\])", re.DOTALL)
UNCLOSED = "[[ without words and ]] after it; want [[unwanted words]], or a .jsonl for brackets"


@benchmark(
    "text", {"path": key(None, "as data.path")}, title="your own texts",
    about="your own texts or questions",
    wants="a file or folder of your own (.txt, .jsonl, .json; in a folder forget.*, and retain.*, "
    "holdout.* if you like)",
    file="text.yaml", is_muse=True,
)  # fmt: skip
def read(data: Data, with_training: bool) -> Benchmark:
    """Read texts of one's own as section `data` says."""
    return read_texts(str(data.path), data.split_text)


Placed = Mapping[str, Sample]  # the samples of a file by where they stand: "forget.txt: line 3"


def read_texts(path: str, split_text: str = "document") -> Benchmark:
    """Read a forget file, or a folder with a forget, a retain and a holdout file.

    A single file is the forget set; a folder has forget.* and optionally retain.* and holdout.*.
    A file is a .txt, a .jsonl (one row a line) or a .json (a list of rows). A row is a text,
    {"text": ...} or {"question": ..., "answer": ...}; "prompt" may stand for "question". A
    document becomes a sample without a prompt.

    Unwanted words can be marked: in a .txt by [[double brackets]], which are taken out of the text;
    in a row by "unwanted", a list of [start, end] (characters of the answer or text) or of strings.
    Rows with the same text as "group" are about one subject: the unit of intervals and splits.

    Args:
        path: the file or folder.
        split_text: a .txt is one "document", or each "paragraph" (between empty lines) or "line"
            of it is.

    Raises:
        ValueError: For a missing or empty file, two files of one set, a name in capitals, a row of
            another form, or marks that are not closed or do not fit the text.
    """
    place = Path(os.path.expanduser(path))
    files: dict[str, Placed] = dict.fromkeys(("forget", "retain", "holdout"), {})
    if place.is_file():
        files["forget"] = _read_file(place, "forget", split_text)
    elif place.is_dir():
        files = {name: _read_set(place, name, split_text) for name in files}
    else:
        wanted = "want a text file or a folder with forget.txt in it"
        raise ValueError(f"data.path: no file or folder {path}; {wanted}")
    forget, retain, holdout = (tuple(samples.values()) for samples in files.values())
    if not forget:
        wanted = "want forget.txt, forget.jsonl or forget.json"
        raise ValueError(f"data.path: {path} has no forget file; {wanted}")
    sets = {
        "forget": _make_scored(forget),
        "retain": _make_scored(retain),
        "verbmem_forget": _make_continuations(forget),
        "verbmem_retain": _make_continuations(retain),
        "knowmem_forget": tuple(sample for sample in forget if sample.prompt),
        "knowmem_retain": tuple(sample for sample in retain if sample.prompt),
        "privleak_forget": _make_passages(forget) if holdout else (),
        "privleak_holdout": _make_passages(holdout),
    }
    sets = {set_name: samples for set_name, samples in sets.items() if samples}
    tasks = {set_name: TASKS[set_name.partition("_")[0]] for set_name in sets}
    notes = _find_texts_in_both(forget, files["retain"])
    name = place.stem if place.is_file() else place.resolve().name
    return Benchmark(f"text/{name}", forget, retain, sets, tasks=tasks, notes=notes)


def _find_texts_in_both(forget: Sequence[Sample], retain: Placed) -> tuple[str, ...]:
    """Return a note where the same text is to be forgotten and kept."""
    texts = {(s.prompt.strip(), s.answer.strip()) for s in forget}
    places = [p for p, s in retain.items() if (s.prompt.strip(), s.answer.strip()) in texts]
    if not places:
        return ()
    count = f"{len(places)} of {len(retain)} retain texts"
    return (f"note: also in the forget set: {count}, the first at {places[0]}; want each in one",)


def _make_scored(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the samples whose every word is scored; long documents in passages."""
    scored: list[Sample] = []
    for sample in samples:
        is_short = bool(sample.prompt) or len(sample.answer) <= PASSAGE_CHARACTERS
        scored += [sample] if is_short else _make_passages([sample])
    return tuple(scored)


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
                unwanted = sample.unwanted and cut_spans(sample.unwanted, start, end)
                passage_id = f"{sample.id}/{number}"
                passages.append(Sample(passage_id, "", text, unwanted, sample.group))
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
            unwanted = passage.unwanted and cut_spans(passage.unwanted, border, len(text))
            fields = passage.id, text[:border], text[border:], unwanted, passage.group
            continuations.append(Sample(*fields))
    return tuple(continuations)


def _find_word_border(text: str, start: int, end: int) -> int:
    """Return the last place up to `end` where a blank follows a word; `end` if there is none."""
    if end >= len(text):
        return len(text)
    words = re.match(r".*\S(?=\s)", text[start : end + 1], re.DOTALL)
    return start + words.end() if words else end


def _read_set(folder: Path, name: str, split_text: str) -> Placed:
    """Return the samples of a set; none where the folder has no file for it."""
    names = [f"{name}{suffix}" for suffix in SUFFIXES]
    files = [path for path in folder.iterdir() if path.name.lower() in names and path.is_file()]
    files.sort(key=lambda path: names.index(path.name.lower()))
    for path in files:
        if path.name not in names:
            raise ValueError(f"data.path: {path}: want {path.name.lower()}, in small letters")
    if len(files) > 1:
        both = f"{files[0]} and {files[1].name}"
        raise ValueError(f"data.path: {both} both hold the {name} set; want one")
    return _read_file(files[0], name, split_text) if files else {}


def _read_file(file: Path, name: str, split_text: str) -> Placed:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"data.path: {file} is no {', '.join(SUFFIXES)} file")
    rows = read_rows(file)
    if file.suffix == ".txt":
        rows = _split_marked_text(file, rows[0].content, BORDERS[split_text])

    def make(number: int, row: Any) -> Sample:
        return Sample(f"{name}/{number}", *read_fields(row))

    samples = make_samples(rows, str(file), make)
    return {f"{file}: {row.place}": sample for row, sample in zip(rows, samples, strict=True)}


def _split_marked_text(file: Path, content: str, border: str | None) -> list[DataRow]:
    """Return the documents of a .txt as rows, with what stood in double brackets as unwanted."""
    has_marks = _MARK.search(content) is not None
    rows, line = [], 1
    for part in re.split(f"({border})", content) if border else [content]:
        unclosed = find_unclosed_mark(part)
        if unclosed is not None:
            place = f"{file}: line {line + part.count(chr(10), 0, unclosed)}"
            raise ValueError(f"data.path: {place}: {UNCLOSED}")
        if part.strip():  # else it is empty, or a border
            rows.append(DataRow(f"line {line}", read_marks(part, has_marks)))
        line += part.count("\n")
    return rows


def find_unclosed_mark(text: str) -> int | None:
    """Return where the first [[ stands that no ]] closes before the next [[; None = nowhere."""
    match = _UNCLOSED_MARK.search(text)
    return match.start() if match else None


def read_marks(text: str, has_marks: bool = False) -> dict[str, Any]:
    """Return a text without its double brackets, as a row with what stood in them as unwanted.

    A text without brackets gets the column, empty, only where others have some (`has_marks`).
    """
    spans, length = [], 0
    parts = _MARK.split(text)
    for number, part in enumerate(parts):
        if number % 2:  # every second part stood in brackets
            spans.append([length, length + len(part)])
        length += len(part)
    row = {"text": "".join(parts)}
    return {**row, "unwanted": spans} if spans or has_marks else row


def read_fields(row: Any) -> tuple[str, str, tuple[Span, ...] | None, str | None]:
    """Return prompt, answer, unwanted spans and group of a row; a document has the prompt "".

    Raises:
        ValueError: If it is no row of a data file.
    """
    if isinstance(row, str):
        return "", row, None, None
    if isinstance(row, dict):
        prompt, answer = row.get("question", row.get("prompt")), row.get("answer")
        if isinstance(prompt, str) and isinstance(answer, str):
            return prompt, answer, _read_unwanted(row, answer), _read_group(row)
        text = row.get("text")
        if isinstance(text, str):
            return "", text, _read_unwanted(row, text), _read_group(row)
    wanted = '{"text": ...} or {"question": ..., "answer": ...}'
    raise ValueError(f"want a text, {wanted}, got {str(row)[:60]!r}")


def _read_group(row: dict) -> str | None:
    """Return the group of a row's column "group"; None where it has none."""
    name = row.get("group")
    if name is None:
        return None
    if not isinstance(name, str | int) or not str(name).strip():
        raise ValueError(f"group: want a text, got {name!r:.60}")
    return f"group/{name}"


def _read_unwanted(row: dict, text: str) -> tuple[Span, ...] | None:
    """Return the merged spans of a row's column "unwanted"; None where it has none."""
    entries = row.get("unwanted")
    if entries is None:
        return None
    wanted = 'want [[start, end], ...] or ["string", ...]'
    if not isinstance(entries, list):
        raise ValueError(f"unwanted: {wanted}, got {str(entries)[:60]!r}")
    spans: list[Span] = []
    for entry in entries:
        if isinstance(entry, str) and entry.strip():
            spans += _find_string(entry, text)
        elif isinstance(entry, list) and [type(number) for number in entry] == [int, int]:
            spans.append(Span(*entry))
        else:
            raise ValueError(f"unwanted: {wanted}, got the entry {str(entry)[:60]!r}")
    return merge_spans(spans)


def _find_string(string: str, text: str) -> Sequence[Span]:
    """Return all places of a string between word borders."""
    before = r"\b" if regex.match(r"\w", string[0]) else ""
    after = r"\b" if regex.match(r"\w", string[-1]) else ""
    # Flag WORD: Unicode's borders, which also stand between two Chinese characters.
    pattern = regex.compile(before + regex.escape(string) + after, regex.WORD)
    spans = [Span(*match.span()) for match in pattern.finditer(text, overlapped=True)]
    if not spans:
        raise ValueError(f"unwanted: {string[:60]!r} stands nowhere in the text as a word")
    return spans
