"""Tables of `python -m tif.evaluate`: a table for each benchmark, and notes below it.

The tables show what `tif.metrics.results.compute_results` returns: a value with its interval, the retain
model's value where it is known, and the protocol behind it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from tif.reports.columns import format_interval, format_number
from tif.utils.terminal import console

HIGHER, LOWER, TO_ZERO, TO_HALF = "↑", "↓", "→ 0", "→ ½"
BY_SET = ""  # lower is better on forget sets, higher on all others

# metric -> its title and where it should go
TITLES = {
    "probability": ("probability", BY_SET),
    "rouge1": ("ROUGE-1 recall", BY_SET),
    "rougeL": ("ROUGE-L recall", BY_SET),
    "truth_ratio": ("truth ratio, geometric", HIGHER),
    "truth_ratio_arithmetic": ("truth ratio, arithmetic", HIGHER),
    "truth_ratio_probability": ("truth ratio, probability", BY_SET),
    "exact_memorization": ("exact memorization", BY_SET),
    "extraction_strength": ("extraction strength", BY_SET),
    "kl": ("KL to the original", LOWER),
    "repetition": ("repetition", LOWER),
    "entropy": ("n-gram entropy, bits", HIGHER),
    "clean": ("no gibberish", HIGHER),
    "verbmem_forget": ("VerbMem, forget", BY_SET),
    "verbmem_retain": ("VerbMem, retain", BY_SET),
    "knowmem_forget": ("KnowMem, forget", BY_SET),
    "knowmem_retain": ("KnowMem, retain", BY_SET),
    "privleak": ("PrivLeak", TO_ZERO),
    "loss": ("AUC, loss", TO_HALF),
    "zlib": ("AUC, zlib", TO_HALF),
    "min_k": ("AUC, Min-K", TO_HALF),
    "min_k_plus_plus": ("AUC, Min-K++", TO_HALF),
    "reference": ("AUC, reference", TO_HALF),
    "gradient_norm": ("AUC, gradient norm", TO_HALF),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: the metric's stable name, as "forget/probability".
        title: what the line says instead.
        value: None where it cannot be computed.
        interval: (low, high) of the value, or None.
        section: heading of the lines that belong together; "" for none.
    """

    name: str
    title: str
    value: float | None
    interval: Sequence[float] | None
    section: str = ""


def show_evaluation(report: Mapping[str, Any]) -> None:
    """Print the tables of recorded evaluations, or of all benchmarks of a model."""
    if "benchmarks" not in report:
        _show_benchmark(report, "")
        return
    for name, numbers in report["benchmarks"].items():
        _show_benchmark({"model": report["model"], "retain_model": None, **numbers}, name)
        place = numbers.get("folder") or numbers["file"]
        console.print(f"records: {place}", soft_wrap=True, markup=False)


def evaluation_table(numbers: Mapping[str, Any], benchmark: str = "") -> Table:
    """Return the table of a benchmark, a line for each number."""
    is_tofu = "tasks" in numbers
    rows = _tofu_rows(numbers) if is_tofu else _named_rows(numbers)
    retain = numbers.get("retain_metrics") or {}
    subject = benchmark or ("questions of TOFU" if is_tofu else "texts and questions")
    title = Text(f"{numbers['model']}, {subject}")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for column in ("value", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    if retain:
        table.add_column("retain\nmodel", justify="right", no_wrap=True)
    table.add_column("protocol")
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_section()
            if section:
                table.add_row(Text(section, "bold"))
        indent = "  " if section else ""
        interval = format_interval(row.interval) if row.interval else "-"
        cells: list[str | Text] = [Text(indent + row.title), format_number(row.value), interval]
        if retain:
            cells.append(format_number(retain.get(row.name)))
        table.add_row(*cells, Text(_protocol_of(numbers, row.name)))
    return table


def evaluation_notes(numbers: Mapping[str, Any]) -> list[str]:
    """Return the lines below a table: how intervals were made, what was compared or is missing."""
    if "bootstrap" not in numbers:
        return ["intervals: value ± 1.96 standard errors as lm-eval gives them"]
    draws, seed = numbers["bootstrap"]["draws"], numbers["bootstrap"]["seed"]
    lines = [f"intervals: percentile bootstrap over questions, {draws} draws, seed {seed}"]
    compared = None
    if "tasks" in numbers:
        compared = "forget quality"
    elif "muse/privleak" in numbers["metrics"]:
        compared = "PrivLeak"
    if numbers["retain_model"] is not None:
        lines.append(f"retain model: {numbers['retain_model']}")
    elif compared:
        lines.append(f"{compared}: needs retain_records or retain_model")
    if not numbers["protocol"]:
        lines.append(
            "protocol: logs of this kind do not record it; "
            "those of locuslab/tofu follow legacy-tofu"
        )
    if numbers["mismatch"]:
        lines.append(f"NOT COMPARABLE, computed all the same: {numbers['mismatch']}")
    return lines


def _show_benchmark(numbers: Mapping[str, Any], benchmark: str) -> None:
    console.print(evaluation_table(numbers, benchmark))
    for line in evaluation_notes(numbers):
        console.print(line, soft_wrap=True, markup=False)


def _tofu_rows(numbers: Mapping[str, Any]) -> list[Row]:
    """Return the two numbers of the whole evaluation, then a section for each set."""
    intervals = numbers["intervals"]
    rows = []
    for name, key in (("forget/quality", "forget_quality"), ("utility/model", "model_utility")):
        title = f"{key.replace('_', ' ')} {HIGHER}"
        rows.append(Row(name, title, numbers[key], intervals[key]))
    for set_name, means in numbers["tasks"].items():
        section = f"{set_name}, {numbers['questions'][set_name]} questions"
        for metric, value in means.items():
            interval = intervals["tasks"][set_name][metric]
            title = _title(metric, is_forget="forget" in set_name)
            rows.append(Row(f"{set_name}/{metric}", title, value, interval, section))
    return rows


def _named_rows(numbers: Mapping[str, Any]) -> list[Row]:
    """Return a row for each metric named "<set>/<metric>", as those of MUSE and lm-eval."""
    counts = numbers.get("questions", {})
    rows = []
    for name, value in numbers["metrics"].items():
        set_name, _, metric = name.partition("/")
        section = f"{set_name}, {counts[set_name]} samples" if set_name in counts else set_name
        is_forget = "forget" in set_name
        if set_name == "muse":  # names of MUSE's metrics contain the set: muse/verbmem_forget
            section, is_forget = "", "forget" in metric
        title = _title(metric, is_forget)
        rows.append(Row(name, title, value, numbers["intervals"][name], section))
    return rows


def _title(metric: str, is_forget: bool) -> str:
    """Return the metric's title and where it should go on a forget set or on another."""
    title, direction = TITLES.get(metric, (metric, BY_SET))
    if direction == BY_SET:
        direction = LOWER if is_forget else HIGHER
    return f"{title} {direction}"


def _protocol_of(numbers: Mapping[str, Any], name: str) -> str:
    """Return the protocol behind a number; both protocols where a comparison mixes two."""
    protocol = _protocol_name(numbers["protocol"])
    is_compared = name in ("forget/quality", "muse/privleak") and numbers["retain_model"]
    if not is_compared:
        return protocol
    retain_protocol = _protocol_name(numbers["retain_protocol"])
    if retain_protocol == protocol:
        return protocol
    return f"{protocol}; retain model {retain_protocol}"


def _protocol_name(protocol: Mapping[str, Any] | None) -> str:
    return str((protocol or {}).get("name", "not recorded"))
