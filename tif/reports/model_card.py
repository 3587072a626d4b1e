"""The model card of an exported model. Called by `training.run`, which writes it as README.md."""

import json
from pathlib import Path

from tif.reports.columns import columns_of, format_number
from tif.reports.run_folder import evaluation_rows


def model_card(folder: Path) -> str:
    """Return the card as Markdown: what made the model, and its metrics at each evaluated epoch."""
    environment = json.loads((folder / "env.json").read_text(encoding="utf-8"))
    version, commit = environment["tif"], environment["commit"]
    lines = ["---", "library_name: transformers", "tags: [machine-unlearning]", "---"]
    lines += [f"# {folder.name}", ""]
    lines += [
        f"Made by tif {version} (commit {commit}) with the configuration in `../config.yaml`.",
        "",
    ]
    evaluations = evaluation_rows(folder)
    if evaluations:
        metrics = list(columns_of(evaluations))
        lines.append("| epoch | " + " | ".join(metrics) + " |")
        lines.append("|---" * (len(metrics) + 1) + "|")
        for row in evaluations:
            values = [format_number(row.get(metric)) for metric in metrics]
            lines.append(f"| {row['epoch']} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"
