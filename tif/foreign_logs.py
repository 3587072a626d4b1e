"""Recorded evaluations of other repositories, converted to our records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.records import Evaluation, Record, RecordSet, number, numbers

TASKS = {
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
    "eval_log_forget.json": "forget",
}
COLUMNS = ("avg_gt_loss", "num_token_gt", "avg_paraphrased_loss", "average_perturb_loss", "generated_text")


def evaluation(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Convert an `eval_log_aggregated.json`: task -> column -> rows.

    Rows are a dict keyed by the question's index (locuslab/tofu) or a plain list (NPO, the TIF release). Such a file
    says nothing about the model or its protocol, and nothing is guessed: the model is named after the file.

    Raises:
        ValueError: If a task has no such column, its columns have different rows, or a value is of the wrong kind.
    """
    tasks = {name: task for name, task in content.items() if name in TASKS}
    if not tasks:
        raise ValueError(f"{path}: not an evaluation log: want tasks {', '.join(TASKS)}; got {', '.join(content)[:60]}")
    sets = (_record_set(TASKS[name], task, f"{path}: {name}") for name, task in tasks.items())
    return Evaluation(model=path.stem, sets={found.name: found for found in sets})


def _record_set(name: str, task: Any, where: str) -> RecordSet:
    if not isinstance(task, dict):
        raise ValueError(f"{where}: want columns, got {task!r:.40}")
    table = {column: _rows(task, column, where) for column in COLUMNS}
    first = table[COLUMNS[0]]
    for column, rows in table.items():
        if rows.keys() != first.keys():
            row = min(rows.keys() ^ first.keys(), key=lambda key: (len(key), key))
            raise ValueError(
                f"{where}/{column} has {len(rows)} rows, {COLUMNS[0]} {len(first)}: only one of them has row {row}"
            )
    return RecordSet(name, tuple(_record(name, row, table, where) for row in first))


def _record(name: str, row: str, table: Mapping[str, Mapping[str, Any]], where: str) -> Record:
    def cell(column: str) -> tuple[Any, str]:
        return table[column][row], f"{where}/{column}/{row}"

    texts, place = cell("generated_text")
    if not (isinstance(texts, list) and len(texts) == 3 and all(isinstance(text, str) for text in texts)):
        raise ValueError(f"{place}: want [prompt, generated, answer], got {texts!r:.40}")
    tokens = number(*cell("num_token_gt"))
    if tokens < 1 or tokens != int(tokens):
        raise ValueError(f"{where}/num_token_gt/{row}: want a count of at least 1, got {tokens}")
    prompt, generated, answer = texts
    return Record(
        id=f"{name}/{row}",
        prompt=prompt,
        answer=answer,
        loss=number(*cell("avg_gt_loss")),
        tokens=int(tokens),
        # On the controls this is the original answer once more, up to 0.09 off through half precision. The authors
        # aggregate it as recorded, and so do we.
        paraphrased_loss=number(*cell("avg_paraphrased_loss")),
        perturbed_losses=numbers(*cell("average_perturb_loss")),
        generated=generated,
    )


def _rows(task: Mapping[str, Any], column: str, where: str) -> dict[str, Any]:
    rows = task.get(column)
    if isinstance(rows, list):
        return {str(i): value for i, value in enumerate(rows)}
    if isinstance(rows, dict):
        return rows
    raise ValueError(f"{where}/{column}: " + ("the column is missing" if column not in task else "want rows"))
