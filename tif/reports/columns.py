"""The metrics that reports show, their titles, and how a number is written.

Read by every table of this room and by the model card.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tif.utils.terminal import escape_controls

# Metric -> its title with the better direction, in the order of the columns.
COLUMNS = {
    "forget/quality": "forget quality ↑",
    "forget/extraction_strength": "forget extraction ↓",
    "utility/model": "model utility ↑",
    "utility/kept": "utility kept ↑",
    "words/unwanted": "UW prob. ↓",
    "words/general": "GW prob. ↑",
    "words/unwanted_extracted": "UW extracted ↓",
    "words/general_extracted": "GW extracted ↑",
    "reworded/unwanted": "UW prob. reworded ↓",
    "reworded/unwanted_extracted": "UW extracted, reworded ↓",
    "implied/unwanted": "UW prob. implied ↓",
    "implied/unwanted_extracted": "UW extracted, implied ↓",
    "forget/probability": "forget prob. ↓",
    "forget/rougeL": "forget ROUGE-L ↓",
    "forget/truth_ratio": "forget truth ratio",
    "retain/probability": "retain prob. ↑",
    "retain/rougeL": "retain ROUGE-L ↑",
    "retain/perplexity": "retain perplexity ↓",
    "retain/kl": "retain KL ↓",
    "muse/verbmem_forget": "VerbMem forget ↓",
    "muse/verbmem_retain": "VerbMem retain ↑",
    "muse/knowmem_forget": "KnowMem forget ↓",
    "muse/knowmem_retain": "KnowMem retain ↑",
    "muse/privleak": "PrivLeak → 0",
}


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns for which at least one of the rows has a value."""
    known_metrics: set[str] = set()
    for row in rows:
        known_metrics |= row.keys()
    return {metric: title for metric, title in COLUMNS.items() if metric in known_metrics}


def format_number(value: float | None) -> str:
    """Return three decimals; a power of ten where these would be 0.000; "-" for None."""
    if value is None:
        return "-"
    is_tiny = value != 0 and abs(value) < 0.001
    return f"{value:.1e}" if is_tiny else f"{value:.3f}"


def format_interval(interval: Sequence[float]) -> str:
    """Return "low – high"."""
    low, high = interval
    return f"{format_number(low)} – {format_number(high)}"


def describe_groups(groups: Mapping[str, Mapping[str, int]]) -> str:
    """Return what intervals are over, by set: "forget 20 authors, world_facts 117 questions"."""
    return ", ".join(f"{name} {count_units(units)}" for name, units in groups.items())


def count_units(units: Mapping[str, int]) -> str:
    """Return "1 author", "20 authors" or "3 documents and 5 questions"."""
    counts = [f"{count} {unit}{'s' * (count != 1)}" for unit, count in units.items()]
    return " and ".join(counts)


def format_mean(value: Mapping[str, Any] | None) -> str:
    """Return "mean ± deviation", the deviation only where there is one."""
    if value is None:
        return "-"
    mean, deviation = format_number(value["mean"]), value["sd"]
    if deviation is None:
        return mean
    tiny = f"{deviation:.0e}"  # one digit is enough
    return f"{mean} ± {tiny if 0 < deviation < 0.001 else format_number(deviation)}"


def escape_markdown(text: str) -> str:
    """Return a name of a user's as Markdown shows it: no markup, no HTML, no control character."""
    return re.sub(r"([\\`*\[\]<>&|])", r"\\\1", escape_controls(text).replace("\n", " "))


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first line is its header."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "".join("| " + " | ".join(map(escape_markdown, row)) + " |\n" for row in rows)
