"""Tables of `tif evaluate`: a table for each benchmark, and notes below it.

The tables show what `tif.metrics` computes of an evaluation: a value with its interval, the retain
model's value where it is known, and the protocol behind it, which a line below the table names
where it is the same for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from tif.config.data import CHAT
from tif.metrics.registry import find_metric
from tif.records.protocols import describe_unknown_rules
from tif.reports.columns import (
    count_units,
    describe_groups,
    format_interval,
    format_metric,
    format_number,
    terminal_table,
)
from tif.utils.terminal import console, literal, print_line

MUSE_NOTE = (
    "muse is muse_bench: Min-K reads all tokens but the first, ROUGE does not stem, VerbMem's "
    "answer is cut; open-unlearning drops Min-K's last token, stems and does not cut"
)


class NumberRow(NamedTuple):
    """A line: the metric's stable name, as "forget/probability", and what the table shows of it."""

    name: str
    title: str
    value: float | None
    interval: Sequence[float] | None
    section: str = ""  # heading of the lines that belong together


def show_evaluation(report: Mapping[str, Any]) -> None:
    """Print the tables of recorded evaluations, or of all benchmarks of a model."""
    if "benchmarks" not in report:
        _show_benchmark(report, "")
        return
    for name, numbers in report["benchmarks"].items():
        _show_benchmark({"model": report["model"], "retain_model": None, **numbers}, name)
        place = numbers.get("folder") or numbers["file"]
        console.print(f"records: {place}", soft_wrap=True)


def _show_benchmark(numbers: Mapping[str, Any], benchmark: str) -> None:
    console.print(evaluation_table(numbers, benchmark))
    for line in evaluation_notes(numbers):
        print_line(line)


def evaluation_table(numbers: Mapping[str, Any], benchmark: str = "") -> Table:
    """Return the table of a benchmark, a line for each number."""
    is_tofu = "tasks" in numbers
    retain = numbers.get("retain_metrics") or {}
    subject = benchmark or ("questions of TOFU" if is_tofu else "texts and questions")
    head = ["metric", "value", "95 % interval", *(["retain\nmodel"] if retain else [])]
    table = terminal_table(head, literal(f"{numbers['model']}, {subject}"), no_wrap=True)
    is_mixed = len(_list_protocols(numbers)) > 1
    if is_mixed:
        table.add_column("protocol")
    section = None
    for row in list_rows(numbers):
        if row.section != section:
            section = row.section
            table.add_section()
            if section:
                table.add_row(literal(section, "bold"))
        metric = literal(("  " if section else "") + row.title)
        interval = format_interval(row.interval, row.name) if row.interval else "-"
        cells: list[str | Text] = [format_metric(row.name, row.value), interval]
        if retain:
            cells.append(format_metric(row.name, retain.get(row.name)))
        if is_mixed:
            cells.append(literal(_protocol_of(numbers, row.name)))
        table.add_row(metric, *cells)
    return table


def evaluation_notes(numbers: Mapping[str, Any]) -> list[str]:
    """Return the lines below a table: how intervals were made, what was compared or is missing."""
    protocols = _list_protocols(numbers)
    names = [f"protocol: {name}" for name in protocols if len(protocols) == 1]
    if (numbers["protocol"] or {}).get("template") == CHAT:
        names = [f"{name}, questions in the model's chat template" for name in names]
    if "bootstrap" not in numbers:
        errors = "value ± 1.96 standard errors of lm-eval, cut to the metric's range"
        return [*names, f"intervals: {errors}"]
    if describe_unknown_rules(numbers["protocol"]):
        names = []  # the line about these rules begins with the name
    lines = [*names, f"intervals: Student's t over {describe_groups(numbers['groups'])}"]
    if numbers.get("forget_quality") is not None:
        draws, seed = numbers["bootstrap"]["draws"], numbers["bootstrap"]["seed"]
        lines.append(f"forget quality's: {draws} draws of the same units, seed {seed}")
    if numbers["retain_model"] is not None:
        lines.append(f"retain model: {numbers['retain_model']}")
    elif "tasks" in numbers:
        lines.append("forget quality: needs retain_records or retain_model")
    elif "muse/privleak" in numbers["metrics"]:
        lines.append("PrivLeak: needs retain_records or retain_model")
    for title, key in (("protocol", "protocol"), ("retain model's protocol", "retain_protocol")):
        rules = numbers.get(key)
        unknown = describe_unknown_rules(rules) if rules is not None else None
        if unknown:
            lines.append(f"{title}: {unknown}")
    for name, value in numbers.get("logged", {}).items():
        source = "against a retain model that it does not name, or an AUC of 0.5"
        metric = find_metric(f"membership/{name}")
        title = metric.title if metric else name
        lines.append(f"the log's own {title}: {format_number(value)} ({source})")
    if numbers["protocol"].get("name") == "muse":
        lines.append(MUSE_NOTE)
    if numbers["mismatch"]:
        lines.append(f"NOT COMPARABLE, computed all the same: {numbers['mismatch']}")
    return lines


def list_rows(numbers: Mapping[str, Any]) -> list[NumberRow]:
    """Return the numbers of a benchmark, with their stable names and intervals."""
    return _tofu_rows(numbers) if "tasks" in numbers else _named_rows(numbers)


def _tofu_rows(numbers: Mapping[str, Any]) -> list[NumberRow]:
    """Return the numbers of the whole evaluation, then a section for each set."""
    intervals, rows = numbers["intervals"], []
    for name, key in (("forget/quality", "forget_quality"), ("utility/model", "model_utility")):
        rows.append(NumberRow(name, _title(name), numbers[key], intervals[key]))
    for name, value in numbers.get("combined", {}).items():
        rows.append(NumberRow(name, _title(name), value, intervals["combined"][name]))
    for set_name, means in numbers["tasks"].items():
        section = _title_section(numbers, set_name, "questions")
        for metric, value in means.items():
            interval = intervals["tasks"][set_name][metric]
            name = f"{set_name}/{metric}"
            rows.append(NumberRow(name, _title(name), value, interval, section))
    for attack, value in numbers.get("membership", {}).items():
        name, interval = f"membership/{attack}", intervals["membership"][attack]
        rows.append(NumberRow(name, _title(name), value, interval, "membership"))
    return rows


def _named_rows(numbers: Mapping[str, Any]) -> list[NumberRow]:
    """Return a row for each metric named "<set>/<metric>", as those of MUSE and lm-eval."""
    counts, rows = numbers.get("questions", {}), []
    for name, value in numbers["metrics"].items():
        set_name = name.partition("/")[0]
        is_set = set_name in counts
        section = _title_section(numbers, set_name, "samples") if is_set else set_name
        section = "" if set_name == "muse" else section  # whose titles contain the set
        rows.append(NumberRow(name, _title(name), value, numbers["intervals"][name], section))
    return rows


def _title_section(numbers: Mapping[str, Any], set_name: str, kind: str) -> str:
    """Return the heading of a set: its size, and the units of its intervals where they differ."""
    count, units = numbers["questions"][set_name], numbers["groups"][set_name]
    title = f"{set_name}, {count} {kind}"
    return title if sum(units.values()) == count else f"{title} of {count_units(units)}"


def _title(name: str) -> str:
    """Return a metric's title and where it should go; the key alone where it is not registered."""
    metric = find_metric(name)
    if metric is None:
        return name.partition("/")[2]
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.title}{unit} {metric.arrow(name)}".strip()


def _list_protocols(numbers: Mapping[str, Any]) -> list[str]:
    """Return the protocols behind the numbers of a table, each once."""
    return list(dict.fromkeys(_protocol_of(numbers, row.name) for row in list_rows(numbers)))


def _protocol_of(numbers: Mapping[str, Any], name: str) -> str:
    """Return the protocol behind a number; both protocols where a comparison mixes two."""
    protocol = _protocol_name(numbers["protocol"])
    metric = find_metric(name)
    if metric is None or not metric.needs_retain or not numbers["retain_model"]:
        return protocol
    retain_protocol = _protocol_name(numbers["retain_protocol"])
    is_mixed = retain_protocol != protocol
    return f"{protocol}; retain model {retain_protocol}" if is_mixed else protocol


def _protocol_name(protocol: Mapping[str, Any] | None) -> str:
    return str((protocol or {}).get("name", "not recorded"))
