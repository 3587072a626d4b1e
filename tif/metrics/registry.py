"""The registry of metrics: each registers its title, direction and place under its stable name.

    @register_metric("<set>/probability", "probability", better="↑", on_forget="↓", reads="answers")
    def probability(records, rules): ...

Tables, pages, charts, loggers, docs and `tif evaluate --metrics` read the registry, and the cards:
what a number means, taken from the docstring of its function. A metric is one file of this folder;
all of them are imported at the first look-up.
"""

import dataclasses
import functools
import importlib
import inspect
import math
import pkgutil
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

FIELDS = ("Formula", "Range", "Better", "Perfect unlearning", "Source")  # of a card
ANY_SET = "<set>"  # stands in a name for any evaluation set
READS = ("answers", "generations", "wrong answers", "token statistics", "kl", "text", "texts",
    "scored text", "")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as everything but its own function knows it.

    A group is what stands before the slash of a name: an evaluation set for "<set>/...".

    Attributes:
        name: stable name: "forget/quality", or "<set>/probability" for a metric of any set.
        function: computes it; its docstring is the text of the card.
        title: in lines of its own and in sentences.
        better: where it should go: ↑, ↓, → 0, → ½, → 1, or "" for neither.
        on_forget: the same on sets that are to be forgotten; None = as `better`.
        short: title of a column; "" = `title`.
        unit: "" for a share of 1 or a plain number.
        decimals: digits that are shown after the point.
        columns: by group, the place among the columns of a run; lower is further left.
        main: groups for which it is shown where only few numbers fit.
        against: the metric of usefulness that it is drawn against; "" = none.
        needs_retain: whether it compares with a retain model.
        note: a line below tables that have it.
        reads: what the function takes of a set, one of READS; the function is called for each set
            that has it: (records, rules) -> (N,) for answers, generations and wrong answers,
            (token statistics, rules) -> (N,), or text of a generation -> number. "" = the function
            is called by name.
        in_runs: whether a run's row of metrics has it, beside `tif evaluate`.
    """

    name: str
    function: Callable[..., Any]
    title: str
    _: dataclasses.KW_ONLY
    better: str
    on_forget: str | None = None
    short: str = ""
    unit: str = ""
    decimals: int = 3
    columns: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"forget": 90,
        "retain": 91})  # fmt: skip
    main: tuple[str, ...] = ()
    against: str = ""
    needs_retain: bool = False
    note: str = ""
    reads: str = ""
    in_runs: bool = True

    @property
    def key(self) -> str:
        """Return the part of the name after the group."""
        return self.name.partition("/")[2]

    def arrow(self, name: str) -> str:
        """Return where the value of stable name `name` should go."""
        is_forget = self.on_forget is not None and "forget" in name.partition("/")[0]
        return self.better if self.on_forget is None or not is_forget else self.on_forget


METRICS: dict[str, Metric] = {}


def register_metric(name: str, title: str, **fields: Any) -> Callable[[Any], Any]:
    """Register the decorated function as the metric `name`; `fields`: those of `Metric`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        METRICS[name] = Metric(name, function, title, **fields)
        return function

    return register


def all_metrics() -> Mapping[str, Metric]:
    """Return the metrics by name, those of every file of this folder."""
    _import_files()
    return METRICS


@functools.cache
def _import_files() -> None:
    package = importlib.import_module(__package__ or "")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def find_metric(name: str) -> Metric | None:
    """Return the metric behind a stable name such as "forget/probability"; None if unknown."""
    metrics = all_metrics()
    return metrics.get(name) or metrics.get(f"{ANY_SET}/{name.partition('/')[2]}")


def metrics_reading(*kinds: str) -> dict[str, Metric]:
    """Return the metrics that read one of `kinds` of a set, by the key after the slash."""
    assert set(kinds) <= set(READS)
    return {item.key: item for item in all_metrics().values() if item.reads in kinds}


@dataclasses.dataclass(frozen=True)
class Card:
    """One metric: name (`<set>` = any evaluation set), first sentence and text of each field."""

    name: str
    sentence: str
    fields: dict[str, str]


def metric_cards() -> list[Card]:
    """Return a card for each metric: first the columns of a run in their order, then the others."""

    def order(metric: Metric) -> tuple[bool, int, str]:
        return not metric.columns, min(metric.columns.values(), default=0), metric.name

    metrics = sorted(all_metrics().values(), key=order)
    return [_read_card(metric.name, metric.function) for metric in metrics]


@functools.cache
def read_limits(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a stable name, from the range on its card."""
    metric = find_metric(name)
    text = _read_card(name, metric.function).fields.get("Range", "") if metric else ""
    match = re.match(r"(-?\d+) (?:to (\d+)\b)?", text)
    if match is None:
        return -math.inf, math.inf
    low, high = match.groups()
    return float(low), float(high or math.inf)


def cards_as_text() -> str:
    """Return all cards for a terminal."""
    blocks = []
    for card in metric_cards():
        lines = [card.sentence]
        lines += [f"{field}: {text}" for field, text in card.fields.items()]
        wrapped = [textwrap.fill(line, 98, break_on_hyphens=False) for line in lines]
        blocks.append(f"{card.name}\n{textwrap.indent(chr(10).join(wrapped), '  ')}")
    return "\n\n".join(blocks)


def _read_card(name: str, function: Callable[..., Any]) -> Card:
    sentence, _, rest = (inspect.getdoc(function) or "").partition("\n\n")
    body = " ".join(rest.split("\n\n")[0].split())
    parts = re.split(rf"\b({'|'.join(FIELDS)}): ", body)
    fields = {field: text.strip() for field, text in zip(parts[1::2], parts[2::2], strict=True)}
    if name.startswith("membership/"):  # its AUC is what is reported
        fields = _read_card("", METRICS["membership/<attack>"].function).fields | fields
    sentence = " ".join(sentence.split()).removeprefix("Return ")
    ordered = {field: fields[field] for field in FIELDS if field in fields}
    return Card(name, sentence[0].upper() + sentence[1:], ordered)
