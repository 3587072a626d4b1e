"""MUSE (Shi et al. 2024, 2407.06460): News and Books, from the hub or a folder, to a Benchmark.

Its rules, read in muse_bench (swj0419/muse_bench eval.py; verbmem/get_rouge.py, knowmem/get_rouge_qa.py and
load_data.py in jaechan-repo/muse_bench and its copies), are the tasks below; tif.metrics.muse has what follows from
the records.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Benchmark, Sample, Task

# VerbMem: a passage as it is, 128 new tokens against the first 128 tokens of what follows (begin token counted).
VERBMEM = Task(template="{prompt}", new_tokens=128, answer_tokens=128, end_token=False)
# KnowMem: ten questions with their answers, then the question; "Answer:" and its blank end the prompt.
KNOWMEM = Task(template="Question: {prompt}\nAnswer: ", new_tokens=32, stops=("\n\n", "\nQuestion", "Question:"))
# PrivLeak: whole passages, scored; every token but the first, no end token.
PRIVLEAK = Task(template="{prompt}", new_tokens=0, end_token=False)

SPLITS = ("forget", *(f"{kind}_{fold}" for kind in ("scal", "sust") for fold in (1, 2, 3, 4)))

# Evaluation sets: name -> (subset, file or hub split, prompt's column or None, answer's column).
SETS = {
    "verbmem_forget": ("verbmem", "forget", "prompt", "gt"),
    "knowmem_forget": ("knowmem", "forget_qa", "question", "answer"),
    "knowmem_retain": ("knowmem", "retain_qa", "question", "answer"),
    "privleak_forget": ("privleak", "forget", None, "text"),
    "privleak_holdout": ("privleak", "holdout", None, "text"),
}
TASKS = {"verbmem": VERBMEM, "knowmem": KNOWMEM, "privleak": PRIVLEAK}

Rows = Callable[[str, str], list[Any] | None]


def muse(path: str, split: str = "forget", train: bool = True) -> Benchmark:
    """Read one forget split with its retain texts and the evaluation sets.

    What a folder does not hold is left out: without raw/retain1 there are no retain samples, without privleak/ no
    PrivLeak. A raw text file is one document, since article borders cannot be recovered from it; a JSON list keeps
    them, and is preferred. The target model has read retain1, retain2 and the forget texts; retain texts for unlearning
    come from retain1, as in muse_bench, so retain2 stands under `background`.

    Args:
        path: hub name (muse-bench/MUSE-News, muse-bench/MUSE-Books), or a folder of one corpus, laid out as muse_bench
            has it: verbmem/, knowmem/, privleak/ and raw/ (scal/, sust/) with <name>.json, raw ones also as .txt.
        split: forget; on News also scal_1 to scal_4 (growing forget sets) and sust_1 to sust_4 (one request after the
            other: each starts from the model of the one before).
        train: whether the texts to forget are wanted; False reads the evaluation sets alone.

    Raises:
        ValueError: A missing folder, file or column, an empty file, a cut one; one line, naming it.
    """
    if split not in SPLITS:
        raise ValueError(f"data.split: MUSE has {', '.join(SPLITS)}; got {split!r}")
    folder = Path(path).expanduser()
    rows = _folder(folder) if folder.is_dir() else _hub(path)
    name = f"muse/{folder.name.lower().removeprefix('muse-')}"
    sets, tasks = _sets(rows)
    if not sets:
        raise ValueError(f"data.path: {path} has no verbmem/, knowmem/ or privleak/ in it; want a folder of MUSE's "
                         "News or Books, or muse-bench/MUSE-News")  # fmt: skip
    if not train:
        return Benchmark(name, (), (), sets, tasks=tasks)
    kind, _, fold = split.partition("_")
    place = ("raw", "forget") if kind == "forget" else (kind, f"forget_{fold}")
    forget = _documents(rows, *place)
    if not forget:
        raise ValueError(f"data.path: {path} has no {'/'.join(place)}.json or .txt; want the texts to forget there")
    return Benchmark(
        name if kind == "forget" else f"{name}/{split}",
        forget,
        _documents(rows, "raw", "retain1"),
        sets,
        background=_documents(rows, "raw", "retain2"),
        tasks=tasks,
    )


def with_examples(examples: Sequence[Sample]) -> Task:
    """KnowMem's task after these questions and answers."""
    shots = (f"Question: {s.prompt}\nAnswer: {s.answer}\n\n" for s in examples)
    return dataclasses.replace(KNOWMEM, prefix="".join(shots))


def _sets(rows: Rows) -> tuple[dict[str, tuple[Sample, ...]], dict[str, Task]]:
    sets: dict[str, tuple[Sample, ...]] = {}
    tasks: dict[str, Task] = {}
    for name, (subset, split, prompt, answer) in SETS.items():
        found = rows(subset, split)
        if found is None:
            continue
        sets[name] = _samples(found, name, f"{subset}/{split}", prompt, answer)
        tasks[name] = TASKS[subset]
        if subset == "knowmem":
            shots = rows(subset, f"{split}_icl")
            if shots is None:
                raise ValueError(f"data.path: {subset}/{split} has no {split}_icl beside it; want the examples that "
                                 "come before each question")  # fmt: skip
            tasks[name] = with_examples(_samples(shots, f"{name}_icl", f"{subset}/{split}_icl", prompt, answer))
    return sets, tasks


def _documents(rows: Rows, subset: str, split: str) -> tuple[Sample, ...]:
    found = rows(subset, split)
    return () if found is None else _samples(found, f"{subset}/{split}", f"{subset}/{split}", None, "text")


def _samples(rows: Sequence[Any], name: str, where: str, prompt: str | None, answer: str) -> tuple[Sample, ...]:
    if not rows:
        raise ValueError(f"data.path: {where} holds no rows; want at least one")
    return tuple(_sample(f"{name}/{i}", row, f"{where} row {i}", prompt, answer) for i, row in enumerate(rows))


def _sample(id: str, row: Any, where: str, prompt: str | None, answer: str) -> Sample:
    fields: Mapping[str, Any] = {answer: row} if isinstance(row, str) and prompt is None else row
    if not isinstance(fields, Mapping):
        raise ValueError(f"data.path: {where}: want an object, got {row!r:.60}")
    for column in filter(None, (prompt, answer)):
        if not isinstance(fields.get(column), str):
            got = f"{fields[column]!r:.60}" if column in fields else f"only {', '.join(map(str, fields)) or 'nothing'}"
            raise ValueError(f"data.path: {where}: want a text as {column}, got {got}")
    try:
        return Sample(id, fields[prompt] if prompt else "", fields[answer])
    except ValueError as error:
        raise ValueError(f"data.path: {where}: {error}") from None


def _folder(folder: Path) -> Rows:
    def rows(subset: str, split: str) -> list[Any] | None:
        file = folder / subset / f"{split}.json"
        try:
            if file.is_file():
                found = json.loads(file.read_text(encoding="utf-8"))
                if not isinstance(found, list):
                    raise ValueError(f"want a list of rows, got {type(found).__name__}")
                return found
            file = file.with_suffix(".txt")
            return [file.read_text(encoding="utf-8")] if file.is_file() else None
        except ValueError as error:
            raise ValueError(f"data.path: cannot read {file} ({one_line(error)}); is it cut?") from None

    return rows


def _hub(name: str) -> Rows:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"data.path: no folder {name}; want a folder of MUSE's files or a hub name, "
                         "muse-bench/MUSE-News or muse-bench/MUSE-Books")  # fmt: skip

    def rows(subset: str, split: str) -> list[Any] | None:
        import datasets

        try:
            return list(datasets.load_dataset(name, subset, split=split))
        except (ValueError, OSError) as error:
            reason = one_line(error)
            raise ValueError(f"data.path: cannot read {subset}/{split} of {name} from the hub ({reason})") from None

    return rows
