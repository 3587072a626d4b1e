"""`Evaluation`: a model's numbers and the records behind them, shown as a table in a notebook."""

from collections.abc import Mapping, Sequence
from typing import Any

from tif.api.notebook import render_table
from tif.records.types import RecordSet
from tif.reports.columns import format_interval, format_metric
from tif.reports.evaluation import list_rows


class Evaluation:
    """What a model scored: numbers with intervals, and the records they were made from.

    Attributes:
        title: whose evaluation it is.
        metrics: values by stable name ("forget/probability"); None = there is none. With several
            benchmarks, names start with that of theirs ("tofu/forget/quality").
        intervals: 95 % intervals over authors, documents or questions, by the same names.
        records: what was asked and said, a `RecordSet` for each set, by its name.
    """

    def __init__(
        self, title: str, benchmarks: Mapping[str, Mapping[str, Any]],
        records: Mapping[str, RecordSet],
    ) -> None:  # fmt: skip
        """Take the numbers of each benchmark, by its name, as `tif.metrics.results` gives them."""
        self.title, self.records = title, dict(records)
        self.metrics: dict[str, float | None] = {}
        self.intervals: dict[str, Sequence[float] | None] = {}
        self._titles: dict[str, str] = {}
        for benchmark, numbers in benchmarks.items():
            prefix = f"{benchmark}/" if len(benchmarks) > 1 else ""
            for row in list_rows(numbers):
                name = prefix + row.name
                self.metrics[name], self.intervals[name] = row.value, row.interval
                section = row.section.partition(",")[0]
                self._titles[name] = f"{prefix}{section} {row.title}".strip()

    def __repr__(self) -> str:
        count = sum(value is not None for value in self.metrics.values())
        return f"Evaluation({self.title!r}, {count} numbers)"

    def _repr_html_(self) -> str:
        rows = []
        for name, value in self.metrics.items():
            if value is not None:
                interval = self.intervals.get(name)
                shown = format_interval(interval, name) if interval else "-"
                rows.append([self._titles.get(name, name), format_metric(name, value), shown])
        return render_table(["metric", "value", "95 % interval"], rows, self.title)
