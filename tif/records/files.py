"""Write and read the folder of records that an evaluation leaves.

<folder>/<set>.json holds the records of a set, one a line; aggregates.json the metrics.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.config.errors import one_line
from tif.data.samples import group_of_id
from tif.records.foreign_logs import convert_log
from tif.records.json_values import load_json, parse, to_fields, to_json, to_lines
from tif.records.types import AnswersBySet, AnswerTokens, Evaluation, Record, RecordSet
from tif.utils.files import write_text
from tif.utils.terminal import console

AGGREGATES = "aggregates.json"
TOKENS = "tokens.json"  # once a run: how its answers are cut into tokens
HEAD = ("model", "family", "epoch", "protocol")  # fields of an Evaluation that every file repeats
# What aggregates.json repeats of each set.
PER_SET: dict[str, Any] = {"data": dict[str, str | None], "questions": dict[str, int]}
OF_LOGS = ("attack_scores", "logged")  # fields of an Evaluation that only logs have


def write_evaluation(
    folder: Path | str, evaluation: Evaluation, metrics: Mapping[str, float | None]
) -> None:
    """Write <folder>/<set>.json for each set, then <folder>/aggregates.json.

    Each file is complete or absent. The aggregates come last: a folder that has them is complete.

    Raises:
        ValueError: If a metric is NaN or infinite; nothing is written then.
    """
    for name, value in metrics.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{folder}: {name} is {value}, want a finite number or None")
    head = {field: getattr(evaluation, field) for field in HEAD}
    head["protocol"] = dict(evaluation.protocol)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A run that is killed from here on leaves no old numbers beside new records.
    (folder / AGGREGATES).unlink(missing_ok=True)
    for name, records in evaluation.sets.items():
        start = to_json(head | {"set": name, "data": records.data}, 1).removesuffix("\n}")
        fields_by_id = {record.id: _describe(record) for record in records.records}
        text = f'{start},\n "records": {to_lines(fields_by_id)}\n}}'
        write_text(folder / f"{name}.json", text)
    sets = evaluation.sets
    aggregates = head | {"sets": list(sets)}
    aggregates["data"] = {name: records.data for name, records in sets.items()}
    aggregates["questions"] = {name: len(records.records) for name, records in sets.items()}
    for field in OF_LOGS:
        if getattr(evaluation, field):
            aggregates[field] = dict(getattr(evaluation, field))
    write_text(folder / AGGREGATES, to_json(aggregates | {"metrics": dict(metrics)}, 1))


def _describe(record: Record) -> dict[str, Any]:
    """Return the fields of a record; its id is the key that they stand under."""
    fields = to_fields(record)
    optional = [name for name in ("logged", "group") if not fields[name]]
    return {name: fields[name] for name in fields if name not in ("id", *optional)}


def read_evaluation(path: Path | str) -> Evaluation:
    """Read a folder of `write_evaluation`, or a log file that `foreign_logs` knows.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If the content is cut short, incomplete or not finite; one line that names file
            and key.
    """
    path = Path(path)
    if not path.is_dir():
        return convert_log(load_json(path), path)
    file = path / AGGREGATES
    if not file.is_file():
        raise ValueError(
            f"{path}: no {AGGREGATES} in it: not an evaluation, or one that did not finish"
        )
    content = load_json(file)
    names = parse(list[str], content.get("sets"), file, "sets")
    for field, kind in PER_SET.items():
        content[field] = parse(kind, content.get(field, {}), file, field)
    evaluation: Evaluation = parse(Evaluation, {**content, "sets": {}}, file)
    sets = {name: _read_set(path / f"{name}.json", name, content) for name in names}
    return dataclasses.replace(evaluation, sets=sets)


def is_stored(folder: Path) -> bool:
    """Return whether tif stored an evaluation in a folder that can be read; damage is told."""
    if not (folder / AGGREGATES).exists():
        return False
    try:
        read_evaluation(folder)
    except (OSError, ValueError) as error:
        line = f"{one_line(error)}: the records are made again"
        console.print(line, soft_wrap=True)
        return False
    return True


def _read_set(path: Path, name: str, aggregates: Mapping[str, Any]) -> RecordSet:
    if not path.is_file():
        raise ValueError(f"{path}: missing, though {AGGREGATES} lists the set {name!r}")
    content = load_json(path)
    records = []
    fields_by_id = parse(dict[str, dict[str, Any]], content.get("records"), path, "records")
    content["questions"] = len(fields_by_id)
    expected = {field: aggregates.get(field) for field in HEAD} | {"set": name}
    for field in PER_SET:
        expected[field] = aggregates[field].get(name, content.get(field))
    for field, there in expected.items():
        here = content.get(field)
        if here != there:
            raise ValueError(f"{path}: {field} is {here!r}, but {AGGREGATES} says {there!r}")
    for record_id, fields in fields_by_id.items():
        # Records of older versions have no group.
        record = {"group": group_of_id(record_id), **fields, "id": record_id}
        records.append(parse(Record, record, path, "records", record_id))
    return RecordSet(name, tuple(records), content.get("data"))


def write_answer_tokens(folder: Path, answers: AnswersBySet) -> None:
    """Write <folder>/tokens.json, a line for each answer."""
    blocks = []
    for set_name, tokens_by_id in answers.items():
        fields_by_id = {record_id: to_fields(tokens) for record_id, tokens in tokens_by_id.items()}
        blocks.append(f" {to_json(set_name)}: {to_lines(fields_by_id)}")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TOKENS, "{\n" + ",\n".join(blocks) + "\n}\n")


def read_answer_tokens(folder: Path) -> dict[str, dict[str, AnswerTokens]]:
    """Return the tokens by set and id; none where the folder has no such file.

    Raises:
        ValueError: If the file is damaged; one line that names file and key.
    """
    path = folder / TOKENS
    answers: dict[str, dict[str, AnswerTokens]] = {}
    if path.exists():
        answers = parse(dict[str, dict[str, AnswerTokens]], load_json(path), path)
    return answers
