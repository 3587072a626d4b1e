"""Unwanted spans that someone else found: a span file of ours, or a folder of the masks the TIF authors released."""

import dataclasses
import json
import operator
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Sample, Span
from tif.identifiers import span_file as store

RULES = ("complement", "targets")


def precomputed(path: str | os.PathLike[str], samples: Iterable[Sample], rule: str) -> tuple[Sample, ...]:
    """Attach spans read from a file or folder.

    Source of the masks: xzhou98/Unlearning-TPO, `TOFU/data/forgetXX_with_common_words_{gpt,bert}`. Its rule
    (TOFU/data_module.py:62) is one of tokens: a token that touches a common word is general, any other token of the
    answer is unwanted. `complement` says the same in characters: unwanted is what no common word covers, cut at the
    common words, without the blanks at either end; `encode.py` makes tokens of it (`overlap: gw` is the release's).
    Differences to the release:

    - a token of blanks only is general here unless it stands inside an unwanted stretch, unwanted there.
    - `targets` is our own rule; the release never reads `target_words`.

    Oddities of the masks, kept as released:

    - gpt masks of forget05 and forget10 list neither punctuation nor digits as common, so `complement` makes all of
      them unwanted; the forget01 gpt mask lists them as common. Under `targets` they are general unless inside a
      target.
    - bert masks list whole blank-separated words only: a word with a full stop or comma attached is always unwanted.
    - a target points at the first occurrence of its string, sometimes the wrong one and sometimes inside a longer word.
    - a few rows have no common word (all of the answer is unwanted) or no target (nothing is, under `targets`).

    Args:
        path: a span file (rows matched by id, see `store.read`; `rule` does not apply) or a mask folder as written by
            `datasets.Dataset.save_to_disk` (rows matched by position: those of the split, all of them, in order).
        samples: the forget samples.
        rule: "complement", or "targets": unwanted are the target words, which only gpt masks have.

    Raises:
        ValueError: One line that starts with the config key.
    """
    path, samples = pathlib.Path(path), tuple(samples)
    if rule not in RULES:
        raise ValueError(f"identifier.rule: want one of {', '.join(RULES)}, got {rule!r}")
    if not path.exists():
        raise ValueError(
            f"identifier.path: {path} does not exist; give a span file "
            "(.jsonl) or a mask folder of xzhou98/Unlearning-TPO (TOFU/data/forgetXX_with_common_words_gpt or _bert)"
        )
    if not path.is_dir():
        try:
            return store.read(path, samples)
        except ValueError as err:
            raise ValueError(f"identifier.path: {err}") from err
    rows = _load(path, needed=("question", "answer", "common_words"))
    if rule == "targets" and rows and "target_words" not in rows[0]:
        raise ValueError(
            f"identifier.rule: targets needs the column target_words, which {path} lacks (only gpt masks have it); "
            "use complement"
        )
    if len(rows) != len(samples):
        raise ValueError(
            f"identifier.path: {path} has {len(rows)} rows, the forget set has {len(samples)} samples; "
            "use the mask folder of this split"
        )
    identified = []
    for number, (row, sample) in enumerate(zip(rows, samples, strict=True)):
        try:
            identified.append(dataclasses.replace(sample, unwanted=_unwanted(row, sample, rule)))
        except ValueError as err:
            raise ValueError(f"identifier.path: {path}: row {number}: {err}") from err
    return tuple(identified)


def complement(answer: str, general: Iterable[Span]) -> Iterator[Span]:
    """The stretches of the answer outside the general spans, trimmed of blanks (`str.isspace`); empty ones vanish."""
    edges = [0, *(edge for span in store.merge(general) for edge in (span.start, span.end)), len(answer)]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        stretch = answer[start:end]
        if words := stretch.strip():
            start += len(stretch) - len(stretch.lstrip())
            yield Span(start, start + len(words))


def _load(path: pathlib.Path, needed: Iterable[str]) -> list[dict[str, Any]]:
    """All rows of a mask folder, read without writing anything to it."""
    import datasets  # takes a second, and span files do without

    try:
        dataset = datasets.load_from_disk(str(path))
        if not isinstance(dataset, datasets.Dataset):
            raise ValueError(f"a {type(dataset).__name__} with the splits {', '.join(dataset)}")
        if missing := [column for column in needed if column not in dataset.column_names]:
            raise ValueError(f"no column {', '.join(missing)} among {', '.join(dataset.column_names)}")
        return dataset.to_list()
    except (OSError, ValueError, LookupError, TypeError) as err:  # what a missing, foreign, damaged or empty file gives
        reason = one_line(err)
        raise ValueError(
            f"identifier.path: {path} is not a mask folder ({reason}); give one of xzhou98/Unlearning-TPO's "
            "(TOFU/data/forgetXX_with_common_words_gpt or _bert), or a span file"
        ) from err


def _unwanted(row: Mapping[str, Any], sample: Sample, rule: str) -> tuple[Span, ...]:
    """The unwanted spans of one sample, whose texts must be the row's."""
    for column, wanted in (("question", sample.prompt), ("answer", sample.answer)):
        if row[column] != wanted:
            theirs, ours = store.contrast(str(row[column]), wanted)
            raise ValueError(
                f"{column} differs: the mask has {theirs}, sample {sample.id} has {ours}; wrong folder for this split?"
            )
    if rule == "targets":
        return store.merge(_spans(row, "target_words"))  # released unsorted
    return tuple(complement(sample.answer, _spans(row, "common_words")))


def _spans(row: Mapping[str, Any], column: str) -> list[Span]:
    """The spans of a column: a list of JSON objects (common_words) or one JSON list of them (target_words)."""
    try:
        cell = row[column]
        words = json.loads(cell) if isinstance(cell, str) else [json.loads(word) for word in cell]
        spans = [(word["word"], Span(operator.index(word["start"]), operator.index(word["end"]))) for word in words]
    except (ValueError, TypeError, KeyError) as err:
        raise ValueError(f"{column}: want JSON objects with word, start, end ({err}); is the folder damaged?") from err
    for word, span in spans:
        there = row["answer"][span.start : span.end]
        if there != word or span.end > len(row["answer"]):
            raise ValueError(
                f"{column}: {word!r} is not at {span.start}:{span.end} of the answer, {there!r} is; "
                "offsets must be Unicode code points into the answer, end exclusive"
            )
    return [span for _, span in spans]
