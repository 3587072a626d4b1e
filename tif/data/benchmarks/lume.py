"""Read LUME, the data of SemEval-2025 task 4, from a folder of its JSON Lines files.

Source: Ramakrishna et al., "LUME", arXiv 2502.15097
(amazon-science/lume-llm-unlearning, data/); the rules of the competition are those of
llmunlearningsemeval2025.github.io.

Evaluated here as in MUSE: VerbMem for sentence completions, KnowMem for questions (without examples
before them). The differences from the competition's own numbers: it takes ROUGE-L of completions,
ours is ROUGE-L F1 of the first 128 tokens; it counts exact matches of answers to questions, ours is
ROUGE-L F1; its membership attack needs texts that no model read, which these files do not have, so
there is none here; MMLU is `lm-eval:mmlu`; it takes the harmonic mean of all over the three tasks,
here each number stands by itself (`data.split` for one task). How its target models were asked the
questions when they learned them is not published; here the template of the configuration asks.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tif.config.data import Data
from tif.config.keys import key
from tif.data.benchmarks import benchmark
from tif.data.benchmarks.muse import STOPS, VERBMEM
from tif.data.rows import get_column, make_samples, read_rows
from tif.data.samples import Benchmark, Sample, Task

# 1: invented stories; 2: invented people with their numbers and addresses; 3: real biographies.
SPLITS = ("task1", "task2", "task3")
SCORED = Task(new_tokens=0)
QUESTIONS = Task(stops=STOPS)  # MUSE's without its examples
TASKS = {"forget": SCORED, "retain": SCORED, "verbmem_forget": VERBMEM, "verbmem_retain": VERBMEM,
         "knowmem_forget": QUESTIONS, "knowmem_retain": QUESTIONS}  # fmt: skip
# A document's name, then sc (sentence completion) or qa (question) and a number.
_ID = re.compile(r"(?P<document>.*)(?P<kind>sc|qa)(?P<number>\d+)", re.DOTALL)


@benchmark(
    "lume",
    {
        "path": key(None, "folder with forget.jsonl and retain.jsonl"),
        "split": key(None, "task1, task2 or task3; null = all"),
    },
    title="LUME",
    about="invented stories, invented people, biographies; splits task1, task2, task3",
    wants="a folder with LUME's forget.jsonl and retain.jsonl (data/ of "
    "github.com/amazon-science/lume-llm-unlearning)",
    file="lume.yaml", is_muse=True,
)  # fmt: skip
def read(data: Data, with_training: bool) -> Benchmark:
    """Read LUME as section `data` says."""
    return read_lume(str(data.path), data.split)


def read_lume(path: str, split: str | None = None) -> Benchmark:
    """Read the forget and the retain rows, and the evaluation sets.

    A question is a sample. So is a document: the beginning and the continuation of a sentence
    completion, joined by a blank, without a prompt, because that is the text to unlearn. It is
    asked for its continuation in the sets `verbmem_*`. Ids are LUME's without quotation marks, as
    "lume/59716187sc1". The data marks no words, so all spans are None.

    Args:
        path: folder with forget.jsonl and retain.jsonl.
        split: task1, task2 or task3; None = all.

    Raises:
        ValueError: For a missing folder, file, column or task, or a row of another form; one line
            that names it.
    """
    if split is not None and split not in SPLITS:
        wanted = ", ".join(SPLITS)
        raise ValueError(f"data.split: LUME has {wanted} (null = all three), got {split!r}")
    sets: dict[str, tuple[Sample, ...]] = {}
    for name in ("forget", "retain"):
        samples = _read_samples(path, name, split)
        completions = tuple(s for s in samples if _is_completion(s))
        sets[name] = tuple(_join(s) if _is_completion(s) else s for s in samples)
        questions = tuple(s for s in samples if not _is_completion(s))
        sets |= {f"verbmem_{name}": completions, f"knowmem_{name}": questions}
    sets = {name: sets[name] for name in TASKS if sets[name]}
    tasks = {name: TASKS[name] for name in sets}
    name = f"lume/{split}" if split else "lume"
    return Benchmark(name, sets["forget"], sets["retain"], sets, tasks=tasks)


def _read_samples(path: str, name: str, split: str | None) -> tuple[Sample, ...]:
    """Read the rows of a file, those of one task where a split is named."""
    folder = Path(os.path.expanduser(path))
    file = folder / f"{name}.jsonl"
    if not file.is_file():
        place = f"{folder} has no {file.name}" if folder.is_dir() else f"no folder {path}"
        wanted = "want LUME's forget.jsonl and retain.jsonl (amazon-science/lume-llm-unlearning)"
        raise ValueError(f"data.path: {place}; {wanted}")
    rows = read_rows(file)
    samples = make_samples(rows, str(file), _make_sample)
    _check_ids(samples, file)
    chosen = []
    for row, sample in zip(rows, samples, strict=True):
        if split in (None, row.content["task"].lower()):
            chosen.append(sample)
    if not chosen:
        raise ValueError(f"data.split: {file} has no rows of {split}; want another split or null")
    return tuple(chosen)


def _make_sample(number: int, row: Any) -> Sample:
    id, task = get_column(row, "id").replace('"', ""), get_column(row, "task")
    match = _ID.fullmatch(id)
    if match is None:
        raise ValueError(f"want an id that ends in sc or qa and a number, got {id!r:.60}")
    if task.lower() not in SPLITS:
        raise ValueError(f"want Task1, Task2 or Task3 as task, got {task!r:.60}")
    prompt, answer = get_column(row, "input"), get_column(row, "output")
    if not prompt.strip():
        raise ValueError("want a text as input, got an empty one")
    if match["kind"] == "sc" and not (prompt[-1].isspace() or answer[:1].isspace()):
        answer = f" {answer}"
    return Sample(f"lume/{id}", prompt, answer)


def _check_ids(samples: Iterable[Sample], file: Path) -> None:
    seen = set()
    for sample in samples:
        if sample.id in seen:
            id = sample.id.removeprefix("lume/")
            raise ValueError(f"data.path: {file} has the id {id} twice; want each once")
        seen.add(sample.id)


def _is_completion(sample: Sample) -> bool:
    match = _ID.fullmatch(sample.id)
    return match is not None and match["kind"] == "sc"


def _join(sample: Sample) -> Sample:
    """Return the whole document of a sentence completion."""
    return Sample(sample.id, "", sample.prompt + sample.answer)
