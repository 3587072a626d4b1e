"""The table of the study, for a terminal and as Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tif.utils.files import write_text
from tif.utils.terminal import console

COLUMNS = {
    "faithfulness": "AUC", "relearning": "R", "quantisation": "Q", "robustness": "robust",
    "overall": "overall", "symmetric_robustness": "sym.",
}  # fmt: skip
PAGE = "metrics.md"
NOTES = (
    "All from 0 to 1, higher is better. AUC: faithfulness, how well the metric tells models that "
    "know the forget set from models that do not.",
    "R, Q: whether relearning and 4-bit weights leave the metric of an unlearned model where it "
    "was (1) or bring it back (0); robust: their harmonic mean; overall: that of AUC and robust; "
    "sym.: robust, where movement either way counts.",
)


def show_metrics(content: Mapping[str, Any], folder: Path) -> None:
    """Print the table and write it to the folder, as Markdown."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    lines = ["| metric | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in sort_metrics(content):
        cells = [_format(row[name]) for name in COLUMNS]
        table.add_row(row["metric"], *cells)
        lines.append(f"| {row['metric']} | " + " | ".join(cells) + " |")
    console.print(table)
    notes = [*NOTES, count_models(content)]
    for note in notes:
        console.print(note)
    text = "# How far each metric can be trusted\n\n" + "\n".join(lines) + "\n\n"
    write_text(folder / PAGE, text + "".join(f"- {note}\n" for note in notes))
    console.print(f"page: {folder / PAGE}", soft_wrap=True)


def sort_metrics(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the metrics' rows, the best as a whole first."""
    return sorted(content["metrics"], key=lambda row: row["overall"] or 0.0, reverse=True)


def count_models(content: Mapping[str, Any]) -> str:
    """Return in words how many models stand behind the table."""
    counts = content["models"]
    least = content["settings"]["least_utility"]
    return (
        f"{counts['knowing']} models that know the forget set, {counts['ignorant']} that do not, "
        f"{counts['unlearned']} unlearned ones; R and Q over the {counts['useful']} that keep "
        f"{least:.0%} of the target model's utility."
    )


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
