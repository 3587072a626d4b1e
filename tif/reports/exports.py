"""The comparison table for a paper or a spreadsheet: Markdown, LaTeX with booktabs, CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tif.reports.columns import columns_of, markdown_table
from tif.reports.sweep import EPOCHS, MODELS, full_table, label_models, rank

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "±": r"$\pm$",
}  # fmt: skip
LABELS = 4  # columns of the table before those of metrics: run, epoch, seeds, steps


def as_markdown(results: Mapping[str, Any]) -> str:
    """Return the table of `sweep.full_table` as Markdown."""
    return markdown_table(full_table(results))


def as_latex(results: Mapping[str, Any]) -> str:
    r"""Return the table as LaTeX; it needs \usepackage{booktabs}."""
    header, *lines = full_table(results)
    layout = "l" * LABELS + "r" * (len(header) - LABELS)
    rows = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule"]
    rows.append(_latex_row([_latex_text(cell) for cell in header]))
    rows.append(r"\midrule")
    names = set(label_models(results).values())
    for i, line in enumerate(lines):
        if line[0] in names and (i == 0 or lines[i - 1][0] not in names):
            rows.append(r"\midrule")
        cells = [_latex_text(cell) for cell in line[:LABELS]]
        rows.append(_latex_row([*cells, *map(_latex_number, line[LABELS:])]))
    return "\n".join([*rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_text(text: str) -> str:
    if text == "-":
        return "--"
    return "".join(LATEX.get(character, character) for character in text)


def _latex_number(cell: str) -> str:
    """Return "0.5 ± 0.1" or "1.9e-04 ± 2e-04" as a formula; "-" as a dash."""
    if cell == "-":
        return _latex_text(cell)
    parts = []
    for number in cell.split(" ± "):
        digits, _, power = number.partition("e")
        parts.append(rf"{digits} \cdot 10^{{{int(power)}}}" if power else digits)
    return "$" + r" \pm ".join(parts) + "$"


def as_csv(results: Mapping[str, Any]) -> str:
    """Return a line for each run and epoch: mean and deviation of each metric, all digits."""
    rows = [results[key] for key in MODELS]
    for run in results["runs"].values():
        rows += [run[epoch] for epoch in EPOCHS]
    columns = columns_of(rows)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["run", "epoch", "seeds"]
    for metric in columns:
        head += [metric, f"{metric} sd"]
    writer.writerow(head)
    for name, run in rank(results):
        for epoch in EPOCHS:
            writer.writerow([_plain(name), epoch, run["seeds"], *_csv_cells(run[epoch], columns)])
    for key, label in label_models(results).items():
        if results[key]:
            means = {metric: {"mean": value, "sd": None} for metric, value in results[key].items()}
            writer.writerow([label, "", "", *_csv_cells(means, columns)])
    return file.getvalue()


def _csv_cells(values: Mapping[str, Any], columns: Mapping[str, str]) -> list[Any]:
    cells: list[Any] = []
    for metric in columns:
        value = values.get(metric) or {"mean": "", "sd": None}
        cells += [value["mean"], "" if value["sd"] is None else value["sd"]]
    return cells


def _plain(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name


FORMATS = {"--markdown": as_markdown, "--latex": as_latex, "--csv": as_csv}
