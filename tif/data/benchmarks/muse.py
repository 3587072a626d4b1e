"""Read MUSE's News or Books from a folder or from the hub.

The tasks here are the rules of muse_bench (swj0419/muse_bench eval.py;
verbmem/get_rouge.py, knowmem/get_rouge_qa.py and load_data.py in jaechan-repo/muse_bench and its
copies); `metrics.muse` computes what follows from the records. Source: Shi et al., "MUSE",
arXiv 2407.06460.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config.data import Data
from tif.config.keys import key
from tif.data.benchmarks import benchmark
from tif.data.rows import get_column, make_samples, read_place
from tif.data.samples import Benchmark, Sample, Task

# VerbMem: a passage as it is, 128 new tokens against the first 128 tokens of what follows (begin
# token counted).
VERBMEM = Task(template="{prompt}", new_tokens=128, answer_tokens=128, end_token=False)
# KnowMem: ten questions with their answers, then the question; "Answer: " ends the prompt.
STOPS = ("\n\n", "\nQuestion", "Question:")
KNOWMEM = Task(template="Question: {prompt}\nAnswer: ", new_tokens=32, stops=STOPS)
# PrivLeak: passages are scored; every token but the first, no end token.
PRIVLEAK = Task(template="{prompt}", new_tokens=0, end_token=False)
TASKS = {"verbmem": VERBMEM, "knowmem": KNOWMEM, "privleak": PRIVLEAK}

SPLITS = ("forget", "scal_1", "scal_2", "scal_3", "scal_4", "sust_1", "sust_2", "sust_3", "sust_4")

# Evaluation sets: (subset, file or hub split, column of the prompt or None, of the answer).
SETS = {
    "verbmem_forget": ("verbmem", "forget", "prompt", "gt"),
    "knowmem_forget": ("knowmem", "forget_qa", "question", "answer"),
    "knowmem_retain": ("knowmem", "retain_qa", "question", "answer"),
    "privleak_forget": ("privleak", "forget", None, "text"),
    "privleak_holdout": ("privleak", "holdout", None, "text"),
}

NEWS, BOOKS = "muse-bench/MUSE-News", "muse-bench/MUSE-Books"
PLACE = "hub name, or a folder laid out as its authors have it"
WANTS = f"a folder of News or Books, or the hub name {NEWS}"
COMMON: dict[str, Any] = {"wants": WANTS, "file": "muse.yaml", "is_muse": True}


@benchmark("muse", title="MUSE", about="either corpus of MUSE, to unlearn", hub=NEWS, **COMMON)
@benchmark("muse-news", {"path": key(NEWS, PLACE)}, title="MUSE News",
           about="BBC articles to forget", hub=NEWS, **COMMON)  # fmt: skip
@benchmark("muse-books", {"path": key(BOOKS, PLACE)}, title="MUSE Books",
           about="Harry Potter books to forget", hub=BOOKS, **COMMON)  # fmt: skip
def read(data: Data, with_training: bool) -> Benchmark:
    """Read a corpus of MUSE as section `data` says."""
    return read_muse(str(data.path), data.split or "forget", with_training)


def read_muse(path: str, split: str = "forget", with_training: bool = True) -> Benchmark:
    """Read a forget split, its retain texts and the evaluation sets.

    What a folder does not have is left out: without raw/retain1 there are no retain samples,
    without privleak/ no PrivLeak. A raw text file is one document, because article borders cannot
    be recovered from it; a JSON list keeps them and is preferred. MUSE's target model is trained
    on retain1, retain2 and the forget texts; unlearning draws retain texts from retain1 only, as
    in muse_bench, so retain2 becomes the background.

    Args:
        path: hub name (muse-bench/MUSE-News, muse-bench/MUSE-Books), or a folder of one corpus in
            muse_bench's layout: verbmem/, knowmem/, privleak/ and raw/ (scal/, sust/) with
            <name>.json; in raw/, scal/ and sust/ also <name>.txt.
        split: forget; on News also scal_1 to scal_4 (forget sets that grow) and sust_1 to sust_4
            (requests one after the other: each starts from the model of the one before).
        with_training: whether the forget and retain texts are wanted; False reads the evaluation
            sets only.

    Raises:
        ValueError: For a missing folder, file or column, or an empty or cut file; one line that
            names it.
    """
    if split not in SPLITS:
        raise ValueError(f"data.split: MUSE has {', '.join(SPLITS)}; got {split!r}")
    name = f"muse/{Path(path).name.lower().removeprefix('muse-')}"
    sets, tasks = _read_sets(path)
    if not with_training:
        return Benchmark(name, forget=(), retain=(), sets=sets, tasks=tasks)
    kind, _, fold = split.partition("_")
    place = ("raw", "forget") if kind == "forget" else (kind, f"forget_{fold}")
    forget = _read_samples(path, *place)
    if not forget:
        missing = f"{'/'.join(place)}.json or .txt"
        raise ValueError(f"data.path: {path} has no {missing}; want the texts to forget there")
    return Benchmark(
        name=name if kind == "forget" else f"{name}/{split}",
        forget=forget,
        retain=_read_samples(path, "raw", "retain1"),
        sets=sets,
        background=_read_samples(path, "raw", "retain2"),
        tasks=tasks,
    )


def add_examples(examples: Sequence[Sample]) -> Task:
    """Return KnowMem's task with these questions and answers before each question."""
    prefix = "".join(f"Question: {s.prompt}\nAnswer: {s.answer}\n\n" for s in examples)
    return dataclasses.replace(KNOWMEM, prefix=prefix)


def _read_sets(path: str) -> tuple[dict[str, tuple[Sample, ...]], dict[str, Task]]:
    """Return the evaluation sets that exist, and their tasks, by name."""
    sets: dict[str, tuple[Sample, ...]] = {}
    tasks: dict[str, Task] = {}
    for name, (subset, split, prompt, answer) in SETS.items():
        samples = _read_samples(path, subset, split, prompt, answer, name)
        if not samples:
            continue
        sets[name], tasks[name] = samples, TASKS[subset]
        if subset == "knowmem":
            examples = _read_samples(path, subset, f"{split}_icl", prompt, answer)
            if not examples:
                raise ValueError(
                    f"data.path: {subset}/{split} has no {split}_icl beside it; want the examples "
                    "that come before each question"
                )
            tasks[name] = add_examples(examples)
    if not sets:
        raise ValueError(
            f"data.path: {path} has no verbmem/, knowmem/ or privleak/ in it; want a folder of "
            "MUSE's News or Books, or muse-bench/MUSE-News"
        )
    return sets, tasks


def _read_samples(
    path: str,
    subset: str,
    split: str,
    prompt: str | None = None,
    answer: str = "text",
    name: str | None = None,
) -> tuple[Sample, ...]:
    """Return samples with ids <name>/<row>; none where the folder has no such file."""
    place = f"{subset}/{split}"

    def make(number: int, row: Any) -> Sample:
        if isinstance(row, str) and not prompt:
            row = {answer: row}
        text = get_column(row, answer)
        return Sample(f"{name or place}/{number}", get_column(row, prompt) if prompt else "", text)

    wants = f"a folder of MUSE's files or a hub name, {NEWS} or {BOOKS}"
    rows = read_place(path, place, (".json", ".txt"), (subset, split), wants)
    return () if rows is None else make_samples(rows, place, make)
