"""Read MUSE's News or Books from a folder or from the hub.

Called by `benchmarks`. The tasks here are the rules of muse_bench (swj0419/muse_bench eval.py;
verbmem/get_rouge.py, knowmem/get_rouge_qa.py and load_data.py in jaechan-repo/muse_bench and its
copies); `metrics.muse` computes what follows from the records. Source: Shi et al., "MUSE",
arXiv 2407.06460.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Benchmark, Sample, Task

# VerbMem: a passage as it is, 128 new tokens against the first 128 tokens of what follows (begin
# token counted).
VERBMEM = Task(template="{prompt}", new_tokens=128, answer_tokens=128, end_token=False)
# KnowMem: ten questions with their answers, then the question; "Answer: " ends the prompt.
KNOWMEM = Task(
    template="Question: {prompt}\nAnswer: ",
    new_tokens=32,
    stops=("\n\n", "\nQuestion", "Question:"),
)
# PrivLeak: passages are scored; every token but the first, no end token.
PRIVLEAK = Task(template="{prompt}", new_tokens=0, end_token=False)
TASKS = {"verbmem": VERBMEM, "knowmem": KNOWMEM, "privleak": PRIVLEAK}

SPLITS = (
    "forget",
    *(f"scal_{fold}" for fold in (1, 2, 3, 4)),
    *(f"sust_{fold}" for fold in (1, 2, 3, 4)),
)

# (subset, file or hub split) -> rows; None where they do not exist.
RowReader = Callable[[str, str], list[Any] | None]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where samples come from: a subset's file (or hub split) and its columns.

    Attributes:
        subset: folder or hub configuration.
        split: file without suffix, or hub split.
        prompt: column of the prompt; None = the rows are documents.
        answer: column of the answer or of the document's text.
    """

    subset: str
    split: str
    prompt: str | None = None
    answer: str = "text"

    @property
    def place(self) -> str:
        """How errors name it."""
        return f"{self.subset}/{self.split}"


SETS = {
    "verbmem_forget": Source("verbmem", "forget", "prompt", "gt"),
    "knowmem_forget": Source("knowmem", "forget_qa", "question", "answer"),
    "knowmem_retain": Source("knowmem", "retain_qa", "question", "answer"),
    "privleak_forget": Source("privleak", "forget"),
    "privleak_holdout": Source("privleak", "holdout"),
}


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
    folder = Path(path).expanduser()
    read_rows = _folder_reader(folder) if folder.is_dir() else _hub_reader(path)
    name = f"muse/{folder.name.lower().removeprefix('muse-')}"
    sets, tasks = _read_sets(read_rows)
    if not sets:
        raise ValueError(
            f"data.path: {path} has no verbmem/, knowmem/ or privleak/ in it; want a folder of "
            "MUSE's News or Books, or muse-bench/MUSE-News"
        )
    if not with_training:
        return Benchmark(name, forget=(), retain=(), sets=sets, tasks=tasks)
    kind, _, fold = split.partition("_")
    source = Source("raw", "forget") if kind == "forget" else Source(kind, f"forget_{fold}")
    forget = _read_documents(read_rows, source)
    if not forget:
        raise ValueError(
            f"data.path: {path} has no {source.place}.json or .txt; want the texts to forget there"
        )
    return Benchmark(
        name=name if kind == "forget" else f"{name}/{split}",
        forget=forget,
        retain=_read_documents(read_rows, Source("raw", "retain1")),
        sets=sets,
        background=_read_documents(read_rows, Source("raw", "retain2")),
        tasks=tasks,
    )


def add_examples(examples: Sequence[Sample]) -> Task:
    """Return KnowMem's task with these questions and answers before each question."""
    prefix = "".join(f"Question: {s.prompt}\nAnswer: {s.answer}\n\n" for s in examples)
    return dataclasses.replace(KNOWMEM, prefix=prefix)


def _read_sets(
    read_rows: RowReader,
) -> tuple[dict[str, tuple[Sample, ...]], dict[str, Task]]:
    """Return the evaluation sets that exist, and their tasks, by name."""
    sets: dict[str, tuple[Sample, ...]] = {}
    tasks: dict[str, Task] = {}
    for name, source in SETS.items():
        rows = read_rows(source.subset, source.split)
        if rows is None:
            continue
        sets[name] = _make_samples(rows, name, source)
        tasks[name] = TASKS[source.subset]
        if source.subset == "knowmem":
            tasks[name] = add_examples(_read_examples(read_rows, name, source))
    return sets, tasks


def _read_examples(read_rows: RowReader, name: str, questions: Source) -> tuple[Sample, ...]:
    """Return the answered questions that come before each question of a KnowMem set."""
    source = dataclasses.replace(questions, split=f"{questions.split}_icl")
    rows = read_rows(source.subset, source.split)
    if rows is None:
        raise ValueError(
            f"data.path: {questions.place} has no {source.split} beside it; want the examples "
            "that come before each question"
        )
    return _make_samples(rows, f"{name}_icl", source)


def _read_documents(read_rows: RowReader, source: Source) -> tuple[Sample, ...]:
    """Return the documents; none where there is no such file."""
    rows = read_rows(source.subset, source.split)
    return () if rows is None else _make_samples(rows, source.place, source)


def _make_samples(rows: Sequence[Any], name: str, source: Source) -> tuple[Sample, ...]:
    if not rows:
        raise ValueError(f"data.path: {source.place} holds no rows; want at least one")
    samples = []
    for i, row in enumerate(rows):
        try:
            prompt, answer = _read_columns(row, source)
            samples.append(Sample(f"{name}/{i}", prompt, answer))
        except ValueError as error:
            raise ValueError(f"data.path: {source.place} row {i}: {error}") from None
    return tuple(samples)


def _read_columns(row: Any, source: Source) -> tuple[str, str]:
    """Return prompt and answer of a row."""
    if isinstance(row, str) and source.prompt is None:
        return "", row
    if not isinstance(row, Mapping):
        raise ValueError(f"want an object, got {row!r:.60}")
    for column in (source.prompt, source.answer):
        if column is None or isinstance(row.get(column), str):
            continue
        got = f"only {', '.join(map(str, row)) or 'nothing'}"
        if column in row:
            got = f"{row[column]!r:.60}"
        raise ValueError(f"want a text as {column}, got {got}")
    return row[source.prompt] if source.prompt else "", row[source.answer]


def _folder_reader(folder: Path) -> RowReader:
    def read_rows(subset: str, split: str) -> list[Any] | None:
        json_file = folder / subset / f"{split}.json"
        text_file = json_file.with_suffix(".txt")
        file = json_file if json_file.is_file() else text_file
        if not file.is_file():
            return None
        try:
            content = file.read_text(encoding="utf-8")
            if file == text_file:
                return [content]
            rows = json.loads(content)
            if not isinstance(rows, list):
                raise ValueError(f"want a list of rows, got {type(rows).__name__}")
            return rows
        except ValueError as error:
            raise ValueError(
                f"data.path: cannot read {file} ({one_line(error)}); is it cut?"
            ) from None

    return read_rows


def _hub_reader(hub_name: str) -> RowReader:
    if hub_name.count("/") != 1 or hub_name.startswith((".", "/", "~")):
        raise ValueError(
            f"data.path: no folder {hub_name}; want a folder of MUSE's files or a hub name, "
            "muse-bench/MUSE-News or muse-bench/MUSE-Books"
        )

    def read_rows(subset: str, split: str) -> list[Any] | None:
        import datasets

        try:
            return list(datasets.load_dataset(hub_name, subset, split=split))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"data.path: cannot read {subset}/{split} of {hub_name} from the hub "
                f"({one_line(error)})"
            ) from None

    return read_rows
