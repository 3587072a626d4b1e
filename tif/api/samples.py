"""Lists of Python as a folder of data: what `tif.unlearn` and `tif.evaluate` make of `forget=`.

The folder is named by its content. It is read as any folder of one's own (`data.benchmark=text`),
so that a run's config.yaml repeats it from the command line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tif.api.settings import call_all
from tif.config.errors import ConfigError, collect_problems, one_line
from tif.data.benchmarks import text as text_files
from tif.data.samples import Sample
from tif.utils.files import read_bytes, write_text

# A text, a question with its answer, a row of a .jsonl file, or a sample.
SampleLike = str | tuple[str, str] | Mapping[str, Any] | Sample
Samples = Sequence[SampleLike] | str | Path  # a path names a .txt, .jsonl or .json file
WANTED = 'want a text, a pair ("question", "answer"), a dict as in a .jsonl, or a tif.Sample'


def list_files(sets: Mapping[str, Any]) -> dict[str, str]:
    """Return the data files of sets of samples by name (forget, retain): content by file name.

    A set is the path of a .txt, .jsonl or .json file, which is taken as it is, or a list of
    samples.

    Raises:
        ConfigError: One line for each set or sample that is none.
    """

    def make_file(name: str) -> tuple[str, str]:
        content = sets[name]
        if isinstance(content, str | Path):
            return name + Path(content).suffix, _read_data_file(name, Path(content).expanduser())
        lines = [json.dumps(row, ensure_ascii=False) for row in list_rows(name, content)]
        return f"{name}.jsonl", "".join(f"{line}\n" for line in lines)

    return dict(call_all(*[partial(make_file, name) for name in sets]))


def write_files(files: Mapping[str, str], parent: Path) -> Path:
    """Write data files to a folder in `parent` that is named by their content; return it."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{content}\0".encode())
    folder = parent / f"samples-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(folder / name, content)
    return folder


def read_samples(name: str, content: Samples) -> tuple[Sample, ...]:
    """Return samples in any form as samples, with the ids that a data file gives them.

    Samples stay as they are.

    Raises:
        ConfigError: One line for each that is no sample.
        ValueError: If a file cannot be read, see `read_texts`.
    """
    if isinstance(content, str | Path):
        return text_files.read_texts(str(content)).forget
    rows, samples = list_rows(name, content), list[Any](content)
    for number, row in enumerate(rows):
        if not isinstance(samples[number], Sample):
            samples[number] = Sample(f"{name}/{number}", *text_files.read_fields(row))
    return tuple(samples)


def list_rows(name: str, content: Any) -> list[dict[str, Any]]:
    """Return samples in any form as rows of a .jsonl file.

    Double brackets in a text or an answer mark unwanted words and are taken out. Where one sample
    of the list has them, nothing is unwanted in those without.

    Raises:
        ConfigError: One line for each that is no sample.
    """
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise ConfigError(f"{name}: want a list of samples or a path, got {content!r:.60}")
    if not content:
        raise ConfigError(f"{name}: want at least one sample, got none")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, given in enumerate(content):
        with collect_problems(problems, prefix=f"{name}[{number}]: "):
            row = _make_row(given)
            json.dumps(row, ensure_ascii=False).encode()  # ValueError for half of an emoji
            Sample(f"{name}[{number}]", *text_files.read_fields(row))
            rows.append(row)
    if problems:
        raise ConfigError("\n".join(problems))
    if any("unwanted" in row for row in rows):
        for row, given in zip(rows, content, strict=True):
            if isinstance(given, str | tuple | list):
                row.setdefault("unwanted", [])
    return rows


def _make_row(given: Any) -> dict[str, Any]:
    """Return a sample in any form as a row; ValueError if it is none."""
    if isinstance(given, Sample):
        texts = {"question": given.prompt, "answer": given.answer}
        row: dict[str, Any] = texts if given.prompt else {"text": given.answer}
        if given.unwanted is not None:
            row["unwanted"] = [[span.start, span.end] for span in given.unwanted]
        if given.group is not None:
            row["group"] = given.group.removeprefix("group/")
        return row
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str):
        return _read_marked_text(given)
    if not isinstance(given, tuple | list) or list(map(type, given)) != [str, str]:
        raise ValueError(f"{WANTED}, got {given!r:.60}")
    row = _read_marked_text(given[1])
    return {"question": given[0], "answer": row.pop("text"), **row}


def _read_marked_text(text: str) -> dict[str, Any]:
    """Return a text without its double brackets as a row; ValueError if one is not closed."""
    if text_files.find_unclosed_mark(text) is not None:
        raise ValueError(f"{text_files.UNCLOSED}; got {text!r:.60}")
    return text_files.read_marks(text)


def _read_data_file(name: str, file: Path) -> str:
    """Return the content of a .txt, .jsonl or .json file; ValueError if it is none."""
    suffixes = text_files.SUFFIXES
    if file.suffix not in suffixes or not file.is_file():
        problem = "no such file" if not file.is_file() else f"no {', '.join(suffixes)} file"
        raise ValueError(f"{name}: {file}: {problem}; want a file, or a list of samples")
    try:
        return read_bytes(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {file}: {one_line(error)}; want a text in UTF-8") from None
