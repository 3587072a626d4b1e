"""How far span files agree: precision, recall and F1 against gold, Jaccard between files, share of unwanted words."""

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from tif.data.samples import Sample, Span
from tif.identifiers import span_file as store
from tif.identifiers.words import words

Units = Callable[[str], list[Span]]  # a text to its words (or tokens): what is counted
Labels = dict[str, list[bool]]  # sample id to one label a unit, True = unwanted


@dataclasses.dataclass(frozen=True)
class Counted:
    """One file's labels. `gold`: whether its identifier was the gold one."""

    name: str
    gold: bool
    labels: Labels


def word_units(text: str) -> list[Span]:
    """Words without attached punctuation, see `words`."""
    return list(words(text))


def token_units(tokenizer: Any) -> Units:
    """Tokens of a (fast) tokenizer, blanks at their edges left out; `tokenizer` is called as transformers' are."""

    def units(text: str) -> list[Span]:
        found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
        stripped = ((s + len(text[s:e]) - len(text[s:e].lstrip()), s + len(text[s:e].rstrip())) for s, e in found)
        return [Span(s, e) for s, e in stripped if s < e]

    return units


def labels(sample: Sample, units: Units) -> list[bool]:
    """Whether each unit of the answer is unwanted: all of its characters that are no blanks are in a span.

    That is `data.overlap=gw`: a unit of both kinds is general.
    """
    covered, spans = list[bool](), collections.deque(sample.unwanted or ())
    for unit in units(sample.answer):  # both sorted
        while spans and spans[0].end <= unit.start:
            spans.popleft()
        at, inside = unit.start, True
        for span in spans:
            if span.start >= unit.end:
                break
            inside &= not sample.answer[at : max(at, span.start)].strip()
            at = max(at, span.end)
        covered.append(inside and not sample.answer[at : unit.end].strip())
    return covered


def compare(paths: Sequence[str | os.PathLike[str]], units: Units = word_units) -> dict[str, Any]:
    """Compare span files on the samples that all of them have.

    Returns:
        {"samples": n, "units": n, "gold": name or None,
        "files": {name: {"uw_share", "precision", "recall", "f1"}}, "jaccard": {name: {name: value}}}. Counts are pooled
        over all samples. Precision and recall are None where nothing is called unwanted or nothing is, F1 then too
        unless both are empty of errors; no gold = no such keys. Jaccard of two files without unwanted words is 1.

    Raises:
        ValueError: A file that is none, files without a common sample or with other answers to the same id.
    """
    files = [(str(path), {s.id: s for s in store.samples(path)}, store.header(path)) for path in paths]
    shared = [i for i in files[0][1] if all(i in rows for _, rows, _ in files)]
    if not shared:
        raise ValueError(f"{files[-1][0]}: no sample in common with {files[0][0]}; want span files of the same data")
    for name, rows, _ in files[1:]:
        for i in shared:
            if rows[i].answer != files[0][1][i].answer:
                raise ValueError(f"{name}: sample {i} has another answer than in {files[0][0]}; want the same data")
    names = _names([name for name, _, _ in files])
    counted = [
        Counted(name, _is_gold(head), {i: labels(rows[i], units) for i in shared})
        for name, (_, rows, head) in zip(names, files, strict=True)
    ]
    gold = next((c for c in counted if c.gold), None)
    return {
        "samples": len(shared),
        "units": sum(map(len, counted[0].labels.values())),
        "gold": gold.name if gold else None,
        "files": {c.name: {"uw_share": _share(c)} | (against(c, gold) if gold else {}) for c in counted},
        "jaccard": {a.name: {b.name: jaccard(a, b) for b in counted} for a in counted},
    }


def against(ours: Counted, gold: Counted) -> dict[str, float | None]:
    """Precision, recall, F1 = 2TP / (2TP + FP + FN) of the units called unwanted; None = 0 / 0.

    Two words unwanted, three called so, one of them right: precision 1/3, recall 1/2, F1 2/5.
    """
    both, called, true = _overlap(ours, gold)
    return {
        "precision": both / called if called else None,
        "recall": both / true if true else None,
        "f1": 2 * both / (called + true) if called + true else None,
    }


def jaccard(a: Counted, b: Counted) -> float:
    """Units unwanted in both over units unwanted in either; 1 where there are none."""
    both, ours, theirs = _overlap(a, b)
    either = ours + theirs - both
    return both / either if either else 1.0


def _overlap(a: Counted, b: Counted) -> tuple[int, int, int]:
    """Units unwanted in both, in a, in b."""
    pairs = [pair for i in a.labels for pair in zip(a.labels[i], b.labels[i], strict=True)]
    return sum(x and y for x, y in pairs), sum(x for x, _ in pairs), sum(y for _, y in pairs)


def _share(c: Counted) -> float:
    flat = [label for own in c.labels.values() for label in own]
    return sum(flat) / len(flat) if flat else 0.0


def _is_gold(head: dict[str, Any]) -> bool:
    identifier = head.get("identifier")
    return isinstance(identifier, dict) and identifier.get("kind") == "gold"


def _names(paths: Sequence[str]) -> list[str]:
    """File names without suffix where they differ, else the paths, numbered if they repeat."""
    short = [os.path.basename(path).removesuffix(".jsonl") for path in paths]
    if len(set(short)) == len(short):
        return short
    return [path if paths.count(path) == 1 else f"{path} ({n})" for n, path in enumerate(paths, 1)]
