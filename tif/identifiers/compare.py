"""How far span files agree: precision, recall and F1 against gold, Jaccard between files.

Called by `python -m tif.identify compare`; a run's diagnosis and `show` use `label_units`. The
ratios are counted here and not by scikit-learn, whose import takes longer than the command, and
whose NaN for 0 / 0 would have to become None again.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from tif.data.samples import Sample, Span
from tif.identifiers import span_file
from tif.identifiers.words import find_words

FindUnits = Callable[[str], list[Span]]  # a text to its words (or tokens): what is counted
Labels = dict[str, list[bool]]  # sample id to one label a unit, True = unwanted


@dataclasses.dataclass(frozen=True)
class LabelledFile:
    """One file's labels. `is_gold`: whether the gold identifier made it."""

    name: str
    is_gold: bool
    labels: Labels


@dataclasses.dataclass(frozen=True)
class _Overlap:
    """Numbers of units that are unwanted in both files, in the first, in the second."""

    both: int
    first: int
    second: int


def find_word_units(text: str) -> list[Span]:
    """Return the words of a text without attached punctuation, see `find_words`."""
    return list(find_words(text))


def make_token_units(tokenizer: Any) -> FindUnits:
    """Return the function that finds a fast tokenizer's tokens, without blanks at their edges."""

    def find_token_units(text: str) -> list[Span]:
        encoded = tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=False, verbose=False
        )
        units = []
        for start, end in encoded["offset_mapping"]:
            token = text[start:end]
            if token.strip():
                left_blanks = len(token) - len(token.lstrip())
                units.append(Span(start + left_blanks, start + len(token.rstrip())))
        return units

    return find_token_units


def label_units(sample: Sample, find_units: FindUnits = find_word_units) -> list[bool]:
    """Return whether each unit of the answer is unwanted: all but its blanks is in a span.

    That is `data.overlap=gw`: a unit of both kinds is general.
    """
    is_covered = [character.isspace() for character in sample.answer]
    for span in sample.unwanted or ():
        is_covered[span.start : span.end] = [True] * (span.end - span.start)
    return [all(is_covered[unit.start : unit.end]) for unit in find_units(sample.answer)]


def compare_files(
    paths: Sequence[str | os.PathLike[str]], find_units: FindUnits = find_word_units
) -> dict[str, Any]:
    """Compare span files on the samples that all of them have.

    Returns:
        {"samples": n, "units": n, "gold": name or None,
        "files": {name: {"uw_share", "precision", "recall", "f1"}},
        "jaccard": {name: {name: value}}}. Counts are pooled over all samples. Without a gold file
        there is no precision, recall and f1; see `score_against_gold` and `jaccard_index`.

    Raises:
        ValueError: A file that is none, files without a common sample or with other answers to the
            same id.
    """
    files = _label_files([str(path) for path in paths], find_units)
    gold = next((file for file in files if file.is_gold), None)
    scores: dict[str, dict[str, float | None]] = {}
    jaccard: dict[str, dict[str, float]] = {}
    for file in files:
        scores[file.name] = {"uw_share": _unwanted_share(file)}
        if gold:
            scores[file.name] |= score_against_gold(file, gold)
        jaccard[file.name] = {other.name: jaccard_index(file, other) for other in files}
    return {
        "samples": len(files[0].labels),
        "units": sum(map(len, files[0].labels.values())),
        "gold": gold.name if gold else None,
        "files": scores,
        "jaccard": jaccard,
    }


def _label_files(paths: Sequence[str], find_units: FindUnits) -> list[LabelledFile]:
    """Return the files' labels of the samples that all of them have."""
    samples_of = [{s.id: s for s in span_file.read_samples(path)} for path in paths]
    first = samples_of[0]
    shared = [i for i in first if all(i in samples for samples in samples_of)]
    if not shared:
        raise ValueError(
            f"{paths[-1]}: no sample in common with {paths[0]}; want span files of the same data"
        )
    files = []
    for path, name, samples in zip(paths, _short_names(paths), samples_of, strict=True):
        for i in shared:
            if samples[i].answer != first[i].answer:
                raise ValueError(
                    f"{path}: sample {i} has another answer than in {paths[0]}; want the same data"
                )
        labels = {i: label_units(samples[i], find_units) for i in shared}
        files.append(LabelledFile(name, _is_gold(span_file.read_header(path)), labels))
    return files


def score_against_gold(file: LabelledFile, gold: LabelledFile) -> dict[str, float | None]:
    """Return precision, recall, F1 = 2TP / (2TP + FP + FN) of the unwanted units; None = 0 / 0.

    Two words unwanted, three called so, one of them right: precision 1/3, recall 1/2, F1 2/5.
    """
    overlap = _count_overlap(file, gold)
    return {
        "precision": _ratio(overlap.both, overlap.first),
        "recall": _ratio(overlap.both, overlap.second),
        "f1": _ratio(2 * overlap.both, overlap.first + overlap.second),
    }


def jaccard_index(first: LabelledFile, second: LabelledFile) -> float:
    """Return units unwanted in both over units unwanted in either; 1 where there are none."""
    overlap = _count_overlap(first, second)
    ratio = _ratio(overlap.both, overlap.first + overlap.second - overlap.both)
    return 1.0 if ratio is None else ratio


def _ratio(part: int, total: int) -> float | None:
    return part / total if total else None


def _count_overlap(first: LabelledFile, second: LabelledFile) -> _Overlap:
    both = in_first = in_second = 0
    for i, labels in first.labels.items():
        for a, b in zip(labels, second.labels[i], strict=True):
            both += a and b
            in_first += a
            in_second += b
    return _Overlap(both, in_first, in_second)


def _unwanted_share(file: LabelledFile) -> float:
    total = sum(len(labels) for labels in file.labels.values())
    return _ratio(sum(sum(labels) for labels in file.labels.values()), total) or 0.0


def _is_gold(header: dict[str, Any]) -> bool:
    identifier = header.get("identifier")
    return isinstance(identifier, dict) and identifier.get("kind") == "gold"


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return file names without suffix where they differ, else the paths, numbered if repeated."""
    short = [os.path.basename(path).removesuffix(".jsonl") for path in paths]
    if len(set(short)) == len(short):
        return short
    names = []
    for number, path in enumerate(paths, 1):
        names.append(path if paths.count(path) == 1 else f"{path} ({number})")
    return names
