"""`kind: precomputed`: unwanted spans read from a span file or from the TIF authors' masks.

Called by `identify` of this room. Nothing is loaded or asked: the spans were made before.
"""

import dataclasses
import operator
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Sample, Span, merge_spans
from tif.identifiers import span_file
from tif.identifiers.released_masks import find_masks
from tif.identifiers.span_operations import complement
from tif.utils.files import parse_json

RULES = ("complement", "targets")
_FOLDERS = "TOFU/data/forgetXX_with_common_words_gpt or _bert"


def read_precomputed(
    path: str | os.PathLike[str], samples: Iterable[Sample], rule: str
) -> tuple[Sample, ...]:
    """Return the samples with spans read from a file or folder.

    Source of the masks: xzhou98/Unlearning-TPO, `TOFU/data/forgetXX_with_common_words_{gpt,bert}`.
    Its rule (TOFU/data_module.py:62) is one of tokens: a token that touches a common word is
    general, any other token of the answer is unwanted. `complement` says the same in characters:
    unwanted is what no common word covers, cut at the common words, without the blanks at either
    end; `data/encoding.py` makes tokens of it (`overlap: gw` is the release's).
    Differences to the release:

    - a token of blanks only is general here unless it stands inside an unwanted stretch, unwanted
      there.
    - `targets` is our own rule; the release never reads `target_words`.

    Oddities of the masks, left as released:

    - gpt masks of forget05 and forget10 list neither punctuation nor digits as common, so
      `complement` makes all of them unwanted; the forget01 gpt mask lists them as common. Under
      `targets` they are general unless inside a target.
    - bert masks list entire blank-separated words only: a word with a full stop or comma attached
      is always unwanted.
    - a target points at the first occurrence of its string, sometimes the wrong one and sometimes
      inside a longer word.
    - a few rows have no common word (all of the answer is unwanted) or no target (nothing is, under
      `targets`).

    Args:
        path: a span file (rows matched by id; `rule` does not apply) or a mask folder as written by
            `Dataset.save_to_disk` (rows matched by position: all of the split, in order).
        samples: the forget samples.
        rule: "complement", or "targets": unwanted are the target words, which only gpt masks have.

    Raises:
        ValueError: One line that starts with the config key.
    """
    path, samples = pathlib.Path(path), tuple(samples)
    if rule not in RULES:
        raise ValueError(f"identifier.rule: want one of {', '.join(RULES)}, got {rule!r}")
    try:
        path = find_masks(path)
    except ValueError as error:
        raise ValueError(f"identifier.path: {error}") from None
    if not path.exists():
        raise ValueError(
            f"identifier.path: {path} does not exist; give a span file (.jsonl) or a mask folder "
            f"of xzhou98/Unlearning-TPO ({_FOLDERS})"
        )
    if path.is_dir():
        return _read_masks(path, samples, rule)
    try:
        return span_file.attach_spans(path, samples)
    except ValueError as error:
        raise ValueError(f"identifier.path: {error}") from error


def _read_masks(path: pathlib.Path, samples: tuple[Sample, ...], rule: str) -> tuple[Sample, ...]:
    rows = _load_rows(path)
    if rule == "targets" and rows and "target_words" not in rows[0]:
        raise ValueError(
            f"identifier.rule: targets needs the column target_words, which {path} lacks (only gpt "
            "masks have it); use complement"
        )
    if len(rows) != len(samples):
        raise ValueError(
            f"identifier.path: {path} has {len(rows)} rows, the forget set has {len(samples)} "
            "samples; use the mask folder of this split"
        )
    identified = []
    for number, (row, sample) in enumerate(zip(rows, samples, strict=True), 1):
        try:
            unwanted = _find_unwanted(row, sample, rule)
        except ValueError as error:
            raise ValueError(f"identifier.path: {path}: row {number}: {error}") from error
        identified.append(dataclasses.replace(sample, unwanted=unwanted))
    return tuple(identified)


def _load_rows(path: pathlib.Path) -> list[dict[str, Any]]:
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
            f"identifier.path: {path} is not a mask folder ({one_line(error)}); give one of "
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
