"""What an evaluation recorded, question by question: the types and our files; `foreign_logs.py` reads others'."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tif.records.json_values import entry, load_json, number, numbers
from tif.records.types import Evaluation, Record, RecordSet, TokenStats
from tif.utils.files import write_text

AGGREGATES = "aggregates.json"


def write(folder: Path | str, evaluation: Evaluation, aggregates: Mapping[str, float | None]) -> None:
    """Write `<folder>/<set>.json` for each set, then `<folder>/aggregates.json`.

    Each file appears whole or not at all, and the aggregates come last: a folder that has them is complete.

    Raises:
        ValueError: If an aggregate is NaN or infinite; nothing is written then.
    """
    head: dict[str, Any] = {
        "model": evaluation.model,
        "family": evaluation.family,
        "epoch": evaluation.epoch,
        "protocol": dict(evaluation.protocol),
    }
    for name, value in aggregates.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{folder}: {name} is {value}, want a finite number or None")
    texts, content = {}, head
    for name, found in evaluation.sets.items():
        content = head | {"set": name, "data": found.data, "records": None}
        texts[f"{name}.json"] = _json(content).replace("null\n}", f"{_lines(found.records)}\n}}")
    content = head | {"sets": list(evaluation.sets), "metrics": dict(aggregates)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / AGGREGATES).unlink(missing_ok=True)  # a run killed from here on leaves no old numbers beside new records
    for file_name, text in texts.items():
        write_text(folder / file_name, text)
    write_text(folder / AGGREGATES, _json(content))


def _json(content: Any, indent: int | None = 1) -> str:
    return json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False)


def _lines(found: Iterable[Record]) -> str:
    """A JSON object of the records by id, a line each."""
    lines = []
    for record in found:
        fields = dataclasses.asdict(record)
        id = fields.pop("id")
        if record.stats:
            fields["stats"]["top"] = "".join("01"[top] for top in record.stats.top)
        lines.append(f"  {_json(id)}: {_json(fields, None)}")
    return "{\n" + ",\n".join(lines) + "\n }"


def read(path: Path | str) -> Evaluation:
    """Read what `write` wrote (a folder), or a log that `foreign_logs.evaluation` knows.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If the content is cut short, incomplete or not finite; one line that names file and place.
    """
    path = Path(path)
    if not path.is_dir():
        from tif.records import foreign_logs

        return foreign_logs.evaluation(load_json(path), path)
    if not (path / AGGREGATES).is_file():
        raise ValueError(f"{path}: no {AGGREGATES} in it: not an evaluation, or one that did not finish")
    head = load_json(path / AGGREGATES)
    names = entry(head, "sets", list, f"{path / AGGREGATES}: ")
    return Evaluation(
        model=entry(head, "model", str, f"{path / AGGREGATES}: "),
        sets={name: _read_set(path / f"{name}.json", name, head) for name in names},
        family=head.get("family"),
        protocol=entry(head, "protocol", dict, f"{path / AGGREGATES}: "),
        epoch=head.get("epoch"),
    )


def _read_set(path: Path, name: str, head: Mapping[str, Any]) -> RecordSet:
    if not path.is_file():
        raise ValueError(f"{path}: missing, though {AGGREGATES} lists the set {name!r}")
    content = load_json(path)
    for key in ("model", "family", "epoch", "protocol"):
        if content.get(key) != head.get(key):
            raise ValueError(f"{path}: {key} is {content.get(key)!r}, but {AGGREGATES} says {head.get(key)!r}")
    records = []
    for id, fields in entry(content, "records", dict, f"{path}: ").items():
        where = f"{path}: records/{id}/"
        if not isinstance(fields, dict):
            raise ValueError(f"{where[:-1]}: want the fields of a record, got {fields!r:.40}")
        paraphrased, generated = fields.get("paraphrased_loss"), fields.get("generated")
        records.append(
            Record(
                id=id,
                prompt=entry(fields, "prompt", str, where),
                answer=entry(fields, "answer", str, where),
                loss=number(fields.get("loss"), f"{where}loss"),
                tokens=None if fields.get("tokens", 0) is None else entry(fields, "tokens", int, where),
                paraphrased_loss=None if paraphrased is None else number(paraphrased, f"{where}paraphrased_loss"),
                perturbed_losses=numbers(fields.get("perturbed_losses"), f"{where}perturbed_losses"),
                generated=None if generated is None else entry(fields, "generated", str, where),
                stats=_read_stats(fields.get("stats"), f"{where}stats"),
            )
        )
    return RecordSet(name, tuple(records), content.get("data"))


def _read_stats(fields: Any, where: str) -> TokenStats | None:
    """What `_lines` made of a record's stats; all columns have the same tokens."""
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: want columns, got {fields!r:.40}")
    top = entry(fields, "top", str, f"{where}/")
    if set(top) - {"0", "1"}:
        raise ValueError(f"{where}/top: want a 0 or 1 for each token, got {top!r:.40}")
    columns = {name: numbers(fields.get(name), f"{where}/{name}") for name in ("logprob", "mean", "std")}
    if fields.get("kl") is not None:
        columns["kl"] = numbers(fields["kl"], f"{where}/kl")
    for name, column in columns.items():
        if len(column) != len(top):
            raise ValueError(f"{where}/{name}: want {len(top)} numbers, as many as in top, got {len(column)}")
    return TokenStats(top=tuple(token == "1" for token in top), **columns)
