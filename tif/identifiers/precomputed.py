"""The identifier `precomputed`: spans of a span file, or of the masks that TIF's authors released.

The masks of TOFU are found in a folder or the cache, or fetched from their repository (also by
`tif download`). released_masks.txt has the SHA-256 of each file: another content is refused.
"""

import dataclasses
import hashlib
import operator
import os
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.config.identifier import Identifier
from tif.data.samples import Sample, Span, merge_spans
from tif.data.templates import Prompts
from tif.identifiers import span_file
from tif.identifiers.registration import identifier
from tif.identifiers.span_operations import complement
from tif.utils.files import parse_json, write_bytes
from tif.utils.hub import SECONDS

RULES = ("complement", "targets")
_FOLDERS = "TOFU/data/forgetXX_with_common_words_gpt or _bert"
REPOSITORY = "xzhou98/Unlearning-TPO/TOFU/data"
COMMIT = "1d132d4fa6e2bb14186461966578fb29325ab458"
ADDRESS = f"https://raw.githubusercontent.com/xzhou98/Unlearning-TPO/{COMMIT}/TOFU/data"
LIST = Path(__file__).parent / "released_masks.txt"  # of sha256sum: checksum, folder/file
LONGEST_FILE = 2_000_000  # bytes


def find_problems(section: Identifier) -> list[str]:
    """Return what is wrong with the keys, one line each."""
    if section.path:
        return []
    wanted = "precomputed needs a span file or a folder of released masks"
    return [f"identifier.path: {wanted}, got null"]


def _describe(section: Identifier) -> dict[str, Any]:
    return {"path": section.path, "rule": section.rule}


@identifier(
    "precomputed", title="a span file or the authors' masks say so", check=find_problems,
    describe=_describe,
)  # fmt: skip
def identify_by_file(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with the spans of the file or folder that `identifier.path` names."""
    return read_precomputed(str(section.path), samples, section.rule)


def read_precomputed(
    path: str | os.PathLike[str], samples: Iterable[Sample], rule: str
) -> tuple[Sample, ...]:
    """Return the samples with spans read from a file or folder.

    Source of the masks: xzhou98/Unlearning-TPO, `TOFU/data/forgetXX_with_common_words_{gpt,bert}`.
    There (TOFU/data_module.py:62) a token that touches a common word is general, any other token of
    the answer is unwanted. `complement` says the same in characters: unwanted is what no common
    word covers, without the blanks at either end; `data/encoding.py` makes tokens of it (`overlap:
    gw` is the release's). A token of blanks alone is unwanted there; here it is general unless it
    stands inside an unwanted stretch. `targets` (unwanted is what `target_words` lists, which only
    gpt masks have) is our own rule.

    The masks are left as released. Those of gpt for forget05 and forget10 list neither punctuation
    nor digits as common, that for forget01 does. Those of bert list entire blank-separated words
    only, so that a word with a full stop or comma attached is always unwanted. A target points at
    the first occurrence of its string, sometimes the wrong one or one inside a longer word.

    Args:
        path: a span file (rows matched by id; `rule` does not apply) or a mask folder as written by
            `Dataset.save_to_disk` (rows matched by position: all of the split, in order).
        samples: the forget samples.
        rule: "complement" or "targets".

    Raises:
        ValueError: One line that starts with the config key.
    """
    path, samples = Path(path), tuple(samples)
    if rule not in RULES:
        raise ValueError(f"identifier.rule: want one of {', '.join(RULES)}, got {rule!r}")
    try:
        path = find_masks(path)
        if not path.exists():
            wanted = f"a mask folder of xzhou98/Unlearning-TPO ({_FOLDERS})"
            raise ValueError(f"{path} does not exist; give a span file (.jsonl) or {wanted}")
        if not path.is_dir():
            return span_file.attach_spans(path, samples)
        rows = _load_rows(path)
        if rule == "complement" or not rows or "target_words" in rows[0]:
            return _attach_masks(path, rows, samples, rule)
    except ValueError as error:
        raise ValueError(f"identifier.path: {error}") from error
    raise ValueError(
        f"identifier.rule: targets needs the column target_words, which {path} lacks (only gpt "
        "masks have it); use complement"
    )


def _attach_masks(
    path: Path, rows: Sequence[Mapping[str, Any]], samples: tuple[Sample, ...], rule: str
) -> tuple[Sample, ...]:
    if len(rows) != len(samples):
        raise ValueError(
            f"{path} has {len(rows)} rows, the forget set has {len(samples)} samples; use the mask "
            "folder of this split"
        )
    identified = []
    for number, (row, sample) in enumerate(zip(rows, samples, strict=True), 1):
        try:
            unwanted = _find_unwanted(row, sample, rule)
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
        identified.append(dataclasses.replace(sample, unwanted=unwanted))
    return tuple(identified)


def _load_rows(path: Path) -> list[dict[str, Any]]:
    """Return all rows of a mask folder, read without writing anything to it.

    Raises:
        ValueError: If it is none: what a missing, foreign, damaged or empty file gives.
    """
    import datasets  # takes a second, and span files do without

    try:
        dataset = datasets.load_from_disk(str(path))
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(f"a {type(dataset).__name__} with the splits {', '.join(dataset)}")
        columns = dataset.column_names
        missing = [name for name in ("question", "answer", "common_words") if name not in columns]
        if missing:
            raise ValueError(f"no column {', '.join(missing)} among {', '.join(columns)}")
        return dataset.to_list()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is not a mask folder ({one_line(error)}); give one of "
            f"xzhou98/Unlearning-TPO's ({_FOLDERS}), or a span file"
        ) from error


def _find_unwanted(row: Mapping[str, Any], sample: Sample, rule: str) -> tuple[Span, ...]:
    """Return the unwanted spans of one sample, whose texts must be the row's."""
    for column, expected in (("question", sample.prompt), ("answer", sample.answer)):
        if row[column] != expected:
            in_mask, in_data = span_file.quote_difference(str(row[column]), expected)
            raise ValueError(
                f"{column} differs: the mask has {in_mask}, sample {sample.id} has {in_data}; "
                "wrong folder for this split?"
            )
    if rule == "targets":
        return merge_spans(_read_column(row, "target_words"))  # released unsorted
    return tuple(complement(sample.answer, _read_column(row, "common_words")))


def _read_column(row: Mapping[str, Any], column: str) -> list[Span]:
    """Return the spans of a column whose words stand where they say.

    `common_words` is a list of JSON objects, `target_words` one JSON list of them.
    """
    try:
        cell = row[column]
        words = parse_json(cell) if isinstance(cell, str) else [parse_json(word) for word in cell]
        texts = [word["word"] for word in words]
        # operator.index refuses 10.0, which is no offset
        spans = [Span(operator.index(word["start"]), operator.index(word["end"])) for word in words]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{column}: want JSON objects with word, start, end ({error}); is the folder damaged?"
        ) from error
    answer = row["answer"]
    for text, span in zip(texts, spans, strict=True):
        there = answer[span.start : span.end]
        if there != text or span.end > len(answer):
            raise ValueError(
                f"{column}: {text!r} is not at {span.start}:{span.end} of the answer, {there!r} "
                "is; offsets must be Unicode code points into the answer, end exclusive"
            )
    return spans


def cache_folder() -> Path:
    """Return the folder where downloaded masks are kept."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "tif" / REPOSITORY


def find_masks(path: Path) -> Path:
    """Return the folder of masks that a path below `REPOSITORY` names; other paths as they are.

    Raises:
        ValueError: If they are not here and cannot be fetched now; one line.
    """
    name = path.as_posix().removeprefix(f"{REPOSITORY}/")
    if path.exists() or name == path.as_posix():
        return path
    folder = cache_folder()
    if name not in {file.split("/")[0] for file in read_checksums()}:
        raise ValueError(f"{path}: the authors have no masks of that name")
    if find_unfinished(folder, name):
        from huggingface_hub import constants

        try:
            if constants.HF_HUB_OFFLINE:  # one key for all that comes from a network
                raise OSError("HF_HUB_OFFLINE is set")
            download_masks(folder, name)
        except OSError as error:
            raise ValueError(
                f"{path} is no folder here and not in {folder}: {error}; where there is a "
                "network: tif download masks"
            ) from None
    return folder / name


def read_checksums() -> dict[str, str]:
    """Return the SHA-256 of each file of the masks, by folder/file."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return {name: checksum for checksum, name in (line.split() for line in lines)}


def find_unfinished(folder: Path, name: str = "") -> list[str]:
    """Return the files of the masks (of those whose name begins so) that a folder lacks."""
    unfinished = []
    for file, checksum in read_checksums().items():
        path = folder / file
        is_there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum
        if file.startswith(name) and not is_there:
            unfinished.append(file)
    return unfinished


def download_masks(folder: Path, name: str = "", address: str = ADDRESS) -> None:
    """Fetch the masks (those whose name begins so) that a folder lacks; 1.5 MB in all.

    Raises:
        OSError: If the server does not answer, or answers with something else.
    """
    from tif.utils.terminal import track

    checksums = read_checksums()
    for file in track(find_unfinished(folder, name), "the authors' masks"):
        try:
            with urllib.request.urlopen(f"{address}/{file}", timeout=5 * SECONDS) as answer:
                content = answer.read(LONGEST_FILE)
        except OSError as error:  # without the address
            reason = getattr(error, "reason", error)
            raise OSError(f"{address} does not answer ({reason})") from None
        if hashlib.sha256(content).hexdigest() != checksums[file]:
            raise OSError(f"{address}/{file} is not the file that the authors published")
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
