"""Metric cards: what each number means, taken from the docstring of the function that computes it.

Called by `tif evaluate --metrics` and docs/hooks.py.
"""

import dataclasses
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Callable
from typing import Any

from tif.metrics import membership
from tif.metrics.registry import Metric, all_metrics

FIELDS = ("Formula", "Range", "Better", "Perfect unlearning", "Source")


@dataclasses.dataclass(frozen=True)
class Card:
    """One metric: name (`<set>` = any evaluation set), first sentence and text of each field."""

    name: str
    sentence: str
    fields: dict[str, str]


def metric_cards() -> list[Card]:
    """Return a card for each metric: first the columns of a run in their order, then the others."""
    metrics = sorted(all_metrics().values(), key=_order)
    return [_read_card(metric.name, metric.function) for metric in metrics]


def _order(metric: Metric) -> tuple[bool, int, str]:
    is_column = bool(metric.columns)
    return not is_column, min(metric.columns.values(), default=0), metric.name


@functools.cache
def read_limits(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value of a metric, from the range on its card."""
    ranges = {card.name: card.fields.get("Range", "") for card in metric_cards()}
    match = re.match(r"(-?\d+) (?:to (\d+)\b)?", ranges.get(name, ""))
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
        fields = _read_card("", membership.auc).fields | fields
    sentence = " ".join(sentence.split()).removeprefix("Return ")
    ordered = {field: fields[field] for field in FIELDS if field in fields}
    return Card(name, sentence[0].upper() + sentence[1:], ordered)
