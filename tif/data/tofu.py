"""TOFU (locuslab/TOFU): a folder of its JSON files, or the hub name, to a Benchmark."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import Benchmark, Sample

SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
AUTHOR_QUESTIONS = 4000  # rows of TOFU's `full`, of which the forget splits are the last 40, 200 and 400

Row = dict[str, Any]


def tofu(path: str, split: str, max_retain: int | None = None) -> Benchmark:
    """Read one forget split with its retain split and the evaluation sets.

    A sample's id is its row in TOFU's `full` ("tofu/3960" is the first of forget01, the 161st of forget05), so that
    records and span files of different splits can be compared. The retain evaluation set is the first 400 rows of
    `full`, for which TOFU has paraphrased and perturbed answers, as far as they are among the retain samples used.

    Args:
        path: folder of TOFU's JSON files (JSON Lines in spite of the suffix), or hub name ("locuslab/TOFU").
        split: forget01, forget05 or forget10.
        max_retain: use only the first n retain samples; None = all.

    Raises:
        ValueError: A missing folder, split, column or empty file, a line that is no JSON; one line, naming it.
    """
    if split not in SPLITS:
        raise ValueError(f"data.split: want one of {', '.join(SPLITS)}, got {split!r}")
    rows = _folder(Path(path).expanduser()) if _is_folder(path) else _hub(path)
    forget = _authors(rows, split, f"{split}_perturbed", last=True)
    retain = _authors(rows, SPLITS[split], "retain_perturbed", last=False)[:max_retain]
    controls = {name: _controls(rows(f"{name}_perturbed"), name) for name in ("real_authors", "world_facts")}
    evaluated = tuple(s for s in retain if s.perturbed_answers)
    return Benchmark(f"tofu/{split}", forget, retain, {"forget": forget, "retain": evaluated, **controls})


def _is_folder(path: str) -> bool:
    if Path(path).expanduser().is_dir():
        return True
    if path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).parent.exists():
        return False
    raise ValueError(f"data.path: no folder {path}; want a folder of TOFU's JSON files or the hub name locuslab/TOFU")


def _folder(folder: Path) -> Callable[[str], list[Row]]:
    def rows(name: str) -> list[Row]:
        file = folder / f"{name}.json"
        if not file.is_file():
            raise ValueError(f"data.path: {folder} has no {file.name}; want TOFU's files (see locuslab/TOFU)")
        found = []
        # Split at "\n" only: str.splitlines would also cut at the line separators that answers may hold.
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            if line.strip():
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"data.path: {file} line {number} is not JSON ({error}); is the file cut?"
                    ) from None
        return _checked(found, str(file), name)

    return rows


def _hub(name: str) -> Callable[[str], list[Row]]:
    def rows(config: str) -> list[Row]:
        import datasets

        try:
            found = list(datasets.load_dataset(name, config, split="train"))
        except (ValueError, OSError) as error:
            reason = one_line(error)
            raise ValueError(f"data.path: cannot read {config} of {name} from the hub ({reason})") from None
        return _checked(found, f"{name} {config}", config)

    return rows


def _checked(rows: list[Row], where: str, name: str) -> list[Row]:
    if not rows:
        raise ValueError(f"data.path: {where} holds no rows; want at least one")
    wanted = {"question": str, "answer": str} | ({"perturbed_answer": list} if name.endswith("_perturbed") else {})
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"data.path: {where} row {number} is a {type(row).__name__}; want one JSON object a line")
        for column, kind in wanted.items():
            if not isinstance(row.get(column), kind):
                got = f"{row[column]!r:.60}" if column in row else "nothing"
                raise ValueError(f"data.path: {where} row {number}: want a {kind.__name__} as {column}, got {got}")
        if not row["answer"].strip():
            raise ValueError(f"data.path: {where} row {number} has an empty answer")
    return rows


def _authors(rows: Callable[[str], list[Row]], name: str, perturbed: str, last: bool) -> tuple[Sample, ...]:
    """Questions about authors, with the paraphrases and perturbed answers of the file that repeats their first rows."""
    plain, extra = rows(name), rows(perturbed)
    if last and len(plain) != len(extra):
        raise ValueError(f"data.path: {name} has {len(plain)} rows, {perturbed} {len(extra)}; want the same questions")
    start = AUTHOR_QUESTIONS - len(plain) if last else 0
    found = []
    for i, row in enumerate(plain):
        more = extra[i] if i < len(extra) else {}
        if more and (more["question"], more["answer"]) != (row["question"], row["answer"]):
            raise ValueError(f"data.path: row {i} of {perturbed} is not row {i} of {name}: {more['question']!r}")
        found.append(
            Sample(
                id=f"tofu/{start + i}",
                prompt=row["question"],
                answer=row["answer"],
                paraphrased_prompt=more.get("paraphrased_question"),
                paraphrased_answer=more.get("paraphrased_answer"),
                perturbed_answers=tuple(more.get("perturbed_answer", ())),
            )
        )
    return tuple(found)


def _controls(rows: Sequence[Row], name: str) -> tuple[Sample, ...]:
    """Real authors and world facts: the perturbed answers are the wrong options."""
    return tuple(
        Sample(f"{name}/{i}", row["question"], row["answer"], perturbed_answers=tuple(row["perturbed_answer"]))
        for i, row in enumerate(rows)
    )
