"""Make a table of docs/results from a sweep's results: its runs, their means over seeds.

    python -m lab.results_table FOLDER METRIC ... > lab/tables/NAME.csv

FOLDER is that of a sweep (runs/preservation), whose results.json `tif sweep` writes from the runs'
records. A cell has the mean of the last epochs with minimum and maximum in brackets, where they
differ as shown; forget quality has the value of each seed.
"""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.reports.columns import QUALITY, column_title, format_metric
from tif.reports.sweep import MODELS, RESULTS_FILE


def make_table(results: dict[str, Any], metrics: Sequence[str]) -> list[list[str]]:
    """Return a header, a line for each run, and one each for the start and the retain model."""
    lines = [["run", *(column_title(metric) for metric in metrics)]]
    for name, run in results["runs"].items():
        cells = [format_cell(metric, run["last"].get(metric)) for metric in metrics]
        lines.append([name, *cells])
    for key, label in MODELS.items():
        means = results[key]
        lines.append([label, *(format_metric(metric, means.get(metric)) for metric in metrics)])
    return lines


def format_cell(metric: str, value: dict[str, Any] | None) -> str:
    """Return the mean over seeds with minimum and maximum; of forget quality all values."""
    if value is None:
        return format_metric(metric, None)
    shown = [format_metric(metric, number) for number in value["values"]]
    if metric == QUALITY:
        return ", ".join(shown)
    low, high = min(value["values"]), max(value["values"])
    limits = f" ({format_metric(metric, low)} – {format_metric(metric, high)})"
    return format_metric(metric, value["mean"]) + (limits if len(set(shown)) > 1 else "")


def main(folder: str, *metrics: str) -> None:
    """Print the table as CSV."""
    results = json.loads((Path(folder) / RESULTS_FILE).read_text(encoding="utf-8"))
    csv.writer(sys.stdout, lineterminator="\n").writerows(make_table(results, metrics))


if __name__ == "__main__":
    main(*sys.argv[1:])
