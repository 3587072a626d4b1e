"""The comparison table for a paper or a spreadsheet: Markdown, LaTeX with booktabs, CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tif.reports.columns import markdown_table
from tif.reports.sweep import EPOCHS, full_table, known_columns, model_rows, rank

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
    rows = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", _latex_row(header, ()), r"\midrule"]
    models = model_rows(results)
    for i, line in enumerate(lines):
        if models and i == len(lines) - len(models):
            rows.append(r"\midrule")
        rows.append(_latex_row(line[:LABELS], line[LABELS:]))
    return "\n".join([*rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_row(texts: Sequence[str], numbers: Sequence[str]) -> str:
    return " & ".join([*map(_latex_text, texts), *map(_latex_number, numbers)]) + r" \\"


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
    columns, file = known_columns(results), io.StringIO()
    fields = ["run", "epoch", "seeds"]
    for metric in columns:
        fields += [metric, f"{metric} sd"]
    writer = csv.DictWriter(file, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for name, run in rank(results):
        # A quote before the name: no spreadsheet takes it for a formula.
        labels = {"run": f"'{name}" if name[:1] in "=+-@\t\r" else name, "seeds": run["seeds"]}
        for epoch in EPOCHS:
            values = {metric: value["mean"] for metric, value in run[epoch].items()}
            deviations = {f"{metric} sd": value["sd"] for metric, value in run[epoch].items()}
            writer.writerow({**values, **deviations, **labels, "epoch": epoch})
    for label, means in model_rows(results).items():
        writer.writerow({**means, "run": label, "epoch": ""})
    return file.getvalue()


FORMATS = {"--markdown": as_markdown, "--latex": as_latex, "--csv": as_csv}
