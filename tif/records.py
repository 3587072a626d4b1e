"""What an evaluation recorded, question by question: the types and our files; `foreign_logs.py` reads others'."""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tif.files import write_text

AGGREGATES = "aggregates.json"
PARAPHRASED = "_paraphrased"  # ending of the sets whose questions are asked in other words
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TokenStats:
    """Each answer token of a text, in order, with the end token where the protocol scores it. All in nats.

    Attributes:
        logprob: log-probability of the token.
        top: whether it is the most likely one.
        mean: mean of log p over the vocabulary, under p (minus the entropy); Min-K++'s mu.
        std: its standard deviation under p; Min-K++'s sigma.
        kl: KL(original || policy) of the token's distribution; None where no original was at hand.
    """

    logprob: tuple[float, ...]
    top: tuple[bool, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kl: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One evaluated question.

    Attributes:
        id: the sample's id.
        prompt: the question; in other repositories' logs it still has its template around it.
        answer: the original answer.
        loss: mean negative log-likelihood of an answer token, in nats.
        tokens: how many answer tokens that is the mean of; None where a log does not say.
        paraphrased_loss: the same for the paraphrased answer; None where there is none, and `loss` stands in.
        perturbed_losses: the same for each wrong answer; empty where there are none.
        generated: greedy continuation of the prompt; None if nothing was generated.
        stats: the original answer token by token; None where a log does not have it.

    Raises:
        ValueError: If a loss is not finite or `tokens` is not positive.
    """

    id: str
    prompt: str
    answer: str
    loss: float
    tokens: int | None
    paraphrased_loss: float | None = None
    perturbed_losses: tuple[float, ...] = ()
    generated: str | None = None
    stats: TokenStats | None = None

    def __post_init__(self) -> None:
        losses = {"loss": self.loss, "paraphrased_loss": self.paraphrased_loss or 0.0}
        losses |= {f"perturbed_losses/{i}": value for i, value in enumerate(self.perturbed_losses)}
        for name, value in losses.items():
            if not math.isfinite(value):
                raise ValueError(f"record {self.id}: {name} is {value}, want a finite number")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"record {self.id}: tokens is {self.tokens}, want at least 1")


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """The records of one evaluation set, in the data's order.

    Attributes:
        name: forget, retain, real_authors or world_facts.
        records: one a question, ids unique.
        data: fingerprint of the samples they were made from, where known.
    """

    name: str
    records: tuple[Record, ...]
    data: str | None = None

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            if record.id in seen:
                raise ValueError(f"{self.name}: two records have the id {record.id!r}")
            seen.add(record.id)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One model, evaluated once.

    Attributes:
        model: its name or path.
        sets: name -> records.
        family: which architecture and tokenizer it has, e.g. "llama2-7b"; None = unknown. Losses per token compare only
            within a family.
        protocol: the rules of the evaluation; `name` is "legacy-tofu", "open-unlearning", ...
        epoch: 0 = before training; None = unknown.
    """

    model: str
    sets: Mapping[str, RecordSet]
    family: str | None = None
    protocol: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epoch: int | None = None

    def __post_init__(self) -> None:
        for key, found in self.sets.items():
            assert key == found.name, f"set {found.name!r} is filed under {key!r}"


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
        from tif import foreign_logs

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


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; NaN and infinity anywhere in it, and anything that is not a JSON object, are refused."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON, perhaps cut short ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: want a JSON object, got {content!r:.40}")
    for place in _not_finite(content, ""):
        raise ValueError(f"{path}: {place}, want a finite number")
    return content


def entry(fields: Mapping[str, Any], key: str, wanted: type[T], where: str) -> T:
    """Return `fields[key]`, which must be there and of the wanted type (`where`: what an error line starts with)."""
    value = fields.get(key)
    if not isinstance(value, wanted) or isinstance(value, bool):
        got = f"{value!r:.40}" if key in fields else "nothing"
        raise ValueError(f"{where}{key}: want {wanted.__name__}, got {got}")
    return value


def text(value: Any, where: str) -> str:
    """Return `value`, which must be a text (`where`: what an error line starts with)."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: want a text, got {value!r:.40}")
    return value


def number(value: Any, where: str) -> float:
    """Return `value`, which must be a number (`where`: what an error line starts with)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: want a number, got {value!r:.40}")
    return float(value)


def numbers(value: Any, where: str) -> tuple[float, ...]:
    """Return `value`, which must be a list of numbers, as a tuple (`where`: what an error line starts with)."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: want a list of numbers, got {value!r:.40}")
    return tuple(number(item, f"{where}/{i}") for i, item in enumerate(value))


def _not_finite(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}"
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, f"{place}/{key}" if place else str(key))
