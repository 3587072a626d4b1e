"""Read TOFU (locuslab/TOFU) from a folder of its JSON files or from the hub.

Called by `benchmarks`. Source: Maini et al., "TOFU", arXiv 2401.06121.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Benchmark, Sample

RETAIN_SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
# Rows of TOFU's `full`; the forget splits are the last 40, 200 and 400 of them.
FULL_ROWS = 4000

Row = dict[str, Any]
RowReader = Callable[[str], list[Row]]  # name of a TOFU file, without suffix -> its rows


def read_tofu(path: str, split: str, max_retain: int | None = None) -> Benchmark:
    """Read a forget split, its retain split and the evaluation sets.

    The id of a sample is its row in TOFU's `full` ("tofu/3960" is the first of forget01 and the
    161st of forget05), so records and span files of different splits can be compared. The retain
    evaluation set holds those of the first 400 rows of `full` that are among the retain samples:
    TOFU has paraphrased and perturbed answers for these rows only.

    Args:
        path: folder of TOFU's JSON files (JSON Lines in spite of the suffix), or hub name.
        split: forget01, forget05 or forget10.
        max_retain: use only the first n retain samples; None = all.

    Raises:
        ValueError: For a missing folder, split or column, an empty file or a line that is no JSON;
            one line that names it.
    """
    if split not in RETAIN_SPLITS:
        raise ValueError(f"data.split: want one of {', '.join(RETAIN_SPLITS)}, got {split!r}")
    read_rows = _row_reader(path)
    forget = _read_forget(read_rows, split)
    retain = _read_retain(read_rows, RETAIN_SPLITS[split])[:max_retain]
    sets = {
        "forget": forget,
        "retain": tuple(sample for sample in retain if sample.perturbed_answers),
        "real_authors": _read_controls(read_rows, "real_authors"),
        "world_facts": _read_controls(read_rows, "world_facts"),
    }
    return Benchmark(f"tofu/{split}", forget, retain, sets)


def _row_reader(path: str) -> RowReader:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _folder_reader(folder)
    is_local = path.startswith((".", "/", "~")) or Path(path).parent.exists()
    if path.count("/") == 1 and not is_local:
        return _hub_reader(path)
    raise ValueError(
        f"data.path: no folder {path}; want a folder of TOFU's JSON files or the hub name "
        "locuslab/TOFU"
    )


def _folder_reader(folder: Path) -> RowReader:
    def read_rows(name: str) -> list[Row]:
        file = folder / f"{name}.json"
        if not file.is_file():
            raise ValueError(
                f"data.path: {folder} has no {file.name}; want TOFU's files (see locuslab/TOFU)"
            )
        rows = []
        # str.splitlines would also cut at the line separators that answers may hold.
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"data.path: {file} line {number} is not JSON ({error}); is the file cut?"
                ) from None
        _check_rows(rows, str(file), name)
        return rows

    return read_rows


def _hub_reader(hub_name: str) -> RowReader:
    def read_rows(name: str) -> list[Row]:
        import datasets

        try:
            rows = list(datasets.load_dataset(hub_name, name, split="train"))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"data.path: cannot read {name} of {hub_name} from the hub ({one_line(error)})"
            ) from None
        _check_rows(rows, f"{hub_name} {name}", name)
        return rows

    return read_rows


def _check_rows(rows: list[Row], place: str, name: str) -> None:
    """Raise ValueError, starting with the place, unless all rows have their columns."""
    if not rows:
        raise ValueError(f"data.path: {place} holds no rows; want at least one")
    columns: dict[str, type] = {"question": str, "answer": str}
    if name.endswith("_perturbed"):
        columns["perturbed_answer"] = list
    for number, row in enumerate(rows):
        start = f"data.path: {place} row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{start} is a {type(row).__name__}; want one JSON object a line")
        for column, kind in columns.items():
            if not isinstance(row.get(column), kind):
                got = f"{row[column]!r:.60}" if column in row else "nothing"
                raise ValueError(f"{start}: want a {kind.__name__} as {column}, got {got}")
        if not row["answer"].strip():
            raise ValueError(f"{start} has an empty answer")


def _read_forget(read_rows: RowReader, split: str) -> tuple[Sample, ...]:
    """Return the forget samples: the last rows of `full`, each with a row of the perturbed file."""
    rows, perturbed = read_rows(split), read_rows(f"{split}_perturbed")
    if len(rows) != len(perturbed):
        raise ValueError(
            f"data.path: {split} has {len(rows)} rows, {split}_perturbed {len(perturbed)}; "
            "want the same questions"
        )
    _check_same_questions(rows, perturbed, split, f"{split}_perturbed")
    first = FULL_ROWS - len(rows)
    return tuple(_make_sample(f"tofu/{first + i}", row, perturbed[i]) for i, row in enumerate(rows))


def _read_retain(read_rows: RowReader, split: str) -> tuple[Sample, ...]:
    """Return the retain samples: the first rows of `full`; the perturbed file has some of them."""
    rows, perturbed = read_rows(split), read_rows("retain_perturbed")
    _check_same_questions(rows, perturbed, split, "retain_perturbed")
    samples = []
    for i, row in enumerate(rows):
        perturbed_row = perturbed[i] if i < len(perturbed) else {}
        samples.append(_make_sample(f"tofu/{i}", row, perturbed_row))
    return tuple(samples)


def _check_same_questions(
    rows: list[Row], perturbed: list[Row], name: str, perturbed_name: str
) -> None:
    for i, (row, other) in enumerate(zip(rows, perturbed, strict=False)):
        if (other["question"], other["answer"]) != (row["question"], row["answer"]):
            raise ValueError(
                f"data.path: row {i} of {perturbed_name} is not row {i} of {name}: "
                f"{other['question']!r}"
            )


def _make_sample(sample_id: str, row: Row, perturbed_row: Row) -> Sample:
    return Sample(
        id=sample_id,
        prompt=row["question"],
        answer=row["answer"],
        paraphrased_prompt=perturbed_row.get("paraphrased_question"),
        paraphrased_answer=perturbed_row.get("paraphrased_answer"),
        perturbed_answers=tuple(perturbed_row.get("perturbed_answer", ())),
    )


def _read_controls(read_rows: RowReader, name: str) -> tuple[Sample, ...]:
    """Return the samples of a control set; their perturbed answers are the wrong options."""
    samples = []
    for i, row in enumerate(read_rows(f"{name}_perturbed")):
        options = tuple(row["perturbed_answer"])
        samples.append(
            Sample(f"{name}/{i}", row["question"], row["answer"], perturbed_answers=options)
        )
    return tuple(samples)
