"""Read rows of data files and of hub data sets, and make samples of them. For the readers here.

Errors are one line that starts with `data.path` and names the file and the line or row.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Sample
from tif.utils.files import parse_json, read_bytes
from tif.utils.hub import find_data_set


@dataclasses.dataclass(frozen=True)
class DataRow:
    """A row of data, and where it stands: "line 3" of a file of lines, "row 3" of a list or table.

    Both are counted from 1.
    """

    place: str
    content: Any


def number_rows(contents: Iterable[Any]) -> list[DataRow]:
    """Return the rows of a list or table."""
    return [DataRow(f"row {number}", content) for number, content in enumerate(contents, 1)]


def read_rows(file: Path, json_lines: bool = False) -> list[DataRow]:
    """Return the rows of a .json (a list), a .jsonl (one row a line) or a .txt (one text).

    `json_lines` reads a .json as one row a line too.
    """
    try:
        content = _decode(read_bytes(file))
        if file.suffix == ".txt":
            return [DataRow("line 1", content)]
        if json_lines or file.suffix == ".jsonl":
            return _parse_lines(content)
        rows = parse_json(content)
        if not isinstance(rows, list):
            raise ValueError(f"want a list of rows, got {type(rows).__name__}")
        return number_rows(rows)
    except (OSError, ValueError) as error:
        hint = "" if isinstance(error, UnicodeError) else "; is it cut?"
        problem = f"data.path: cannot read {file} ({one_line(error)}){hint}"
        raise ValueError(problem) from None


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")  # Windows puts a byte order mark before the text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8"
        raise UnicodeError(f"{problem}; save it as UTF-8") from None


def _parse_lines(content: str) -> list[DataRow]:
    rows = []
    # str.splitlines would also cut at the line separators that answers may hold.
    for number, line in enumerate(content.split("\n"), 1):
        try:
            if line.strip():
                rows.append(DataRow(f"line {number}", parse_json(line)))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return rows


def read_place(
    path: str, file: str, suffixes: Sequence[str], hub: tuple[str, str], wants: str
) -> list[DataRow] | None:
    """Return the rows of a data set of the hub, or of a folder that holds it; None: no such file.

    Args:
        path: the folder, or the hub name: its copy in the cache is read, or else downloaded now.
        file: of the folder, without its ending.
        suffixes: endings that it may have; the rows of a .json are JSON Lines if it is the only
            one.
        hub: configuration and split of the data set, which a folder may hold as the hub has it.
        wants: what the path should be, for an error.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        is_local = path.startswith((".", "/", "~")) or Path(path).parent.exists()
        if path.count("/") != 1 or is_local:
            raise ValueError(f"data.path: no folder {path}; want {wants}")
        try:
            return _read_snapshot(find_data_set(path), *hub)
        except OSError as error:
            raise ValueError(f"data.path: {one_line(error, 500)}") from None
    for suffix in suffixes:
        if (folder / f"{file}{suffix}").is_file():
            return read_rows(folder / f"{file}{suffix}", json_lines=len(suffixes) == 1)
    has_snapshot = any(folder.glob("{}/{}-*.parquet".format(*hub)))
    return _read_snapshot(folder, *hub) if has_snapshot else None


def _read_snapshot(folder: Path, config: str, split: str) -> list[DataRow]:
    """Return the rows of a data set that was downloaded from the hub into a folder."""
    import datasets

    datasets.disable_progress_bars()  # of files that take no second
    datasets.config.HF_HUB_OFFLINE = True  # else it asks the hub for half a minute
    try:
        return number_rows(datasets.load_dataset(str(folder), config, split=split))
    except (ValueError, OSError) as error:
        place = f"{split} of {config} of {folder}"
        problem = f"data.path: cannot read {place} ({one_line(error)}); is the download cut?"
        raise ValueError(problem) from None


def make_samples(
    rows: Sequence[DataRow], file: str, make: Callable[[int, Any], Sample]
) -> tuple[Sample, ...]:
    """Return `make(index, content)` of every row; a ValueError of it gets the row's place."""
    if not rows:
        raise ValueError(f"data.path: {file} holds no rows; want at least one")
    samples = []
    for index, row in enumerate(rows):
        try:
            samples.append(_check_texts(make(index, row.content)))
        except ValueError as error:
            place = f"{file}: {row.place}"
            raise ValueError(f"data.path: {place}: {one_line(error)}") from None
    return tuple(samples)


def _check_texts(sample: Sample) -> Sample:
    """Return the sample; raise ValueError where one of its texts is none that a file can hold."""
    paraphrase = sample.paraphrased_prompt or "", sample.paraphrased_answer or ""
    for text in (sample.prompt, sample.answer, *paraphrase, *sample.perturbed_answers):
        if not isinstance(text, str):
            raise ValueError(f"want a text, got {text!r:.60}")
        if text.encode(errors="replace").decode() != text:
            raise ValueError(f"want Unicode, got half a character (a surrogate) in {text!r:.60}")
    return sample


def get_column(row: Any, column: str, kind: type = str) -> Any:
    """Return a column of a row, which must be a JSON object with a text (or list) there."""
    if not isinstance(row, Mapping):
        raise ValueError(f"want an object, got {row!r:.60}")
    if not isinstance(row.get(column), kind):
        got = f"{row[column]!r:.60}" if column in row else f"only {', '.join(row) or 'nothing'}"
        wanted = "text" if kind is str else "list"
        raise ValueError(f"want a {wanted} as {column}, got {got}")
    return row[column]


@functools.cache
def read_refusals() -> tuple[str, ...]:
    """Return a hundred ways to say that one does not know; none names a question or a subject."""
    path = Path(__file__).with_name("refusals.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines())
