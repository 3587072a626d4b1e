"""How far span files agree: precision, recall and F1 against gold, Jaccard between files.

Called by `tif identify compare`; a run's diagnosis and `span_display` use `count_units`. The
ratios are counted here and not by scikit-learn, whose import takes longer than the command, and
whose NaN for 0 / 0 would have to become None again.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tif.data.samples import Sample, Span
from tif.identifiers import span_file
from tif.identifiers.segmentation import find_words
from tif.identifiers.span_operations import jaccard_index

FindUnits = Callable[[str], Iterable[Span]]  # a text to its words (or tokens): what is counted


@dataclasses.dataclass(frozen=True)
class Units:
    """The words (or tokens) of some answers."""

    unwanted: set[tuple[str, int]]  # (sample id, number of the unit) of the unwanted ones
    total: int

    @property
    def unwanted_share(self) -> float:
        """Share of the unwanted ones; 0 where there are no units."""
        return len(self.unwanted) / max(1, self.total)


def make_token_units(tokenizer: Any) -> FindUnits:
    """Return the function that finds a fast tokenizer's tokens, without blanks at their edges."""

    def find_token_units(text: str) -> list[Span]:
        options = {"return_offsets_mapping": True, "add_special_tokens": False, "verbose": False}
        units = []
        for start, end in tokenizer(text, **options)["offset_mapping"]:
            token = text[start:end]
            if token.strip():
                left_blanks = len(token) - len(token.lstrip())
                units.append(Span(start + left_blanks, start + len(token.rstrip())))
        return units

    return find_token_units


def label_units(sample: Sample, find_units: FindUnits = find_words) -> list[bool]:
    """Return whether each unit of the answer is unwanted: all but its blanks is in a span.

    That is `data.overlap=gw`: a unit of both kinds is general.
    """
    is_covered = [character.isspace() for character in sample.answer]
    for span in sample.unwanted or ():
        is_covered[span.start : span.end] = [True] * (span.end - span.start)
    return [all(is_covered[unit.start : unit.end]) for unit in find_units(sample.answer)]


def count_units(samples: Iterable[Sample], find_units: FindUnits = find_words) -> Units:
    """Return the units of all answers; of words without attached punctuation, see `find_words`."""
    unwanted, total = set[tuple[str, int]](), 0
    for sample in samples:
        labels = label_units(sample, find_units)
        unwanted |= {(sample.id, number) for number, label in enumerate(labels) if label}
        total += len(labels)
    return Units(unwanted, total)


def compare_files(
    paths: Sequence[str | os.PathLike[str]], find_units: FindUnits = find_words
) -> dict[str, Any]:
    """Compare span files on the samples that all of them have.

    Returns:
        {"samples": n, "units": n, "gold": name or None,
        "files": {name: {"uw_share", "precision", "recall", "f1"}},
        "jaccard": {name: {name: value}}}. Counts are pooled over all samples. Without a gold file
        there is no precision, recall and f1; see `score_against_gold`.

    Raises:
        ValueError: A file that is none, files without a common sample or with other answers to the
            same id.
    """
    names = _short_names([str(path) for path in paths])
    samples = dict(zip(names, _read_shared_samples([str(path) for path in paths]), strict=True))
    units = {name: count_units(samples[name], find_units) for name in names}
    is_gold = [_is_gold(path) for path in paths]
    gold = names[is_gold.index(True)] if True in is_gold else None
    scores: dict[str, dict[str, float | None]] = {}
    jaccard: dict[str, dict[str, float]] = {}
    for name in names:
        scores[name] = {"uw_share": units[name].unwanted_share}
        if gold is not None:
            scores[name] |= score_against_gold(units[name].unwanted, units[gold].unwanted)
        jaccard[name] = {
            other: jaccard_index(units[name].unwanted, units[other].unwanted) for other in names
        }
    return {
        "samples": len(samples[names[0]]), "units": units[names[0]].total, "gold": gold,
        "files": scores, "jaccard": jaccard,
    }  # fmt: skip


def _read_shared_samples(paths: Sequence[str]) -> list[list[Sample]]:
    """Return each file's samples that all files have, in the order of the first file."""
    files = [{sample.id: sample for sample in span_file.read_samples(path)} for path in paths]
    shared = [name for name in files[0] if all(name in file for file in files)]
    if not shared:
        problem = f"no sample in common with {paths[0]}; want span files of the same data"
        raise ValueError(f"{paths[-1]}: {problem}")
    for path, file in zip(paths, files, strict=True):
        for name in shared:
            if file[name].answer != files[0][name].answer:
                problem = f"has another answer than in {paths[0]}; want the same data"
                raise ValueError(f"{path}: sample {name} {problem}")
    return [[file[name] for name in shared] for file in files]


def score_against_gold(unwanted: set[Any], gold: set[Any]) -> dict[str, float | None]:
    """Return precision, recall, F1 = 2TP / (2TP + FP + FN) of the unwanted units; None = 0 / 0.

    Two words unwanted, three called so, one of them right: precision 1/3, recall 1/2, F1 2/5.
    """
    both = len(unwanted & gold)
    return {
        "precision": both / len(unwanted) if unwanted else None,
        "recall": both / len(gold) if gold else None,
        "f1": 2 * both / (len(unwanted) + len(gold)) if unwanted or gold else None,
    }


def _is_gold(path: str | os.PathLike[str]) -> bool:
    identifier = span_file.read_header(path).get("identifier")
    return isinstance(identifier, dict) and identifier.get("kind") == "gold"


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return file names without suffix where they differ, else the paths, numbered if repeated."""
    short = [os.path.basename(path).removesuffix(".jsonl") for path in paths]
    if len(set(short)) == len(short):
        return short
    numbered = [f"{path} ({number})" for number, path in enumerate(paths, 1)]
    pairs = zip(paths, numbered, strict=True)
    return [path if paths.count(path) == 1 else name for path, name in pairs]
