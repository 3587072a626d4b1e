"""Write and read the folder of records that an evaluation leaves.

<folder>/<set>.json holds the records of a set, one a line; aggregates.json the metrics. Called by
`training`, `evaluation`, `reports` and the evaluate command; `foreign_logs` reads the logs of
other repositories.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from tif.records.foreign_logs import convert_log
from tif.records.json_values import Fields, load_json, parse
from tif.records.types import Evaluation, Record, RecordSet, TokenStats
from tif.utils.files import write_text

AGGREGATES = "aggregates.json"
HEAD = ("model", "family", "epoch", "protocol")  # fields of an Evaluation that every file repeats


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
        start = _to_json(head | {"set": name, "data": records.data}).removesuffix("\n}")
        text = f'{start},\n "records": {_records_to_json(records.records)}\n}}'
        write_text(folder / f"{name}.json", text)
    aggregates = head | {"sets": list(evaluation.sets), "metrics": dict(metrics)}
    write_text(folder / AGGREGATES, _to_json(aggregates))


def _to_json(content: Any, indent: int | None = 1) -> str:
    return json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False)


def _records_to_json(records: Iterable[Record]) -> str:
    """Return a JSON object of the records by id, a line each."""
    lines = []
    for record in records:
        fields = dataclasses.asdict(record)
        del fields["id"]
        if record.stats:
            fields["stats"]["top"] = "".join("1" if top else "0" for top in record.stats.top)
        lines.append(f"  {_to_json(record.id)}: {_to_json(fields, indent=None)}")
    return "{\n" + ",\n".join(lines) + "\n }"


class StoredStats(Fields):
    """A TokenStats in a file; `top` has a character per token, 1 for true."""

    top: Annotated[str, Field(pattern="^[01]*$")]
    logprob: list[float]
    mean: list[float]
    std: list[float]
    kl: list[float] | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> "StoredStats":
        for name in ("logprob", "mean", "std", "kl"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.top):
                raise ValueError(f"{name} has {len(column)} numbers, top has {len(self.top)}")
        return self

    def restore(self) -> TokenStats:
        """Return it as TokenStats."""
        return TokenStats(
            logprob=tuple(self.logprob),
            top=tuple(character == "1" for character in self.top),
            mean=tuple(self.mean),
            std=tuple(self.std),
            kl=None if self.kl is None else tuple(self.kl),
        )


class StoredRecord(Fields):
    """A Record in a file, without its id."""

    prompt: str
    answer: str
    loss: float
    tokens: Annotated[int, Field(ge=1)] | None
    paraphrased_loss: float | None
    perturbed_losses: list[float]
    generated: str | None
    stats: StoredStats | None = None

    def restore(self, record_id: str) -> Record:
        """Return it as a Record."""
        return Record(
            id=record_id,
            prompt=self.prompt,
            answer=self.answer,
            loss=self.loss,
            tokens=self.tokens,
            paraphrased_loss=self.paraphrased_loss,
            perturbed_losses=tuple(self.perturbed_losses),
            generated=self.generated,
            stats=None if self.stats is None else self.stats.restore(),
        )


class StoredHead(Fields):
    """What every file of an evaluation begins with."""

    model: str
    family: str | None = None
    epoch: int | None = None
    protocol: dict[str, Any]


class StoredSet(StoredHead):
    """<set>.json."""

    data: str | None = None
    records: dict[str, StoredRecord]


class StoredAggregates(StoredHead):
    """aggregates.json; its metrics are computed from the records again."""

    sets: list[str]


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
    head = parse(StoredAggregates, load_json(file), file)
    return Evaluation(
        model=head.model,
        sets={name: _read_set(path / f"{name}.json", name, head) for name in head.sets},
        family=head.family,
        protocol=head.protocol,
        epoch=head.epoch,
    )


def _read_set(path: Path, name: str, head: StoredHead) -> RecordSet:
    if not path.is_file():
        raise ValueError(f"{path}: missing, though {AGGREGATES} lists the set {name!r}")
    stored = parse(StoredSet, load_json(path), path)
    for field in HEAD:
        here, there = getattr(stored, field), getattr(head, field)
        if here != there:
            raise ValueError(f"{path}: {field} is {here!r}, but {AGGREGATES} says {there!r}")
    records = [record.restore(record_id) for record_id, record in stored.records.items()]
    return RecordSet(name, tuple(records), stored.data)
