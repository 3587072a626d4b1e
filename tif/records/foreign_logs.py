"""Recorded evaluations of other repositories, converted to our records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tif.records.json_values import number, numbers, text
from tif.records.types import Evaluation, Record, RecordSet

TASKS = {
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
    "eval_log_forget.json": "forget",
}
PREFIXES = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}  # open-unlearning's
COLUMNS = ("avg_gt_loss", "num_token_gt", "avg_paraphrased_loss", "average_perturb_loss", "generated_text")


def evaluation(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Convert an `eval_log_aggregated.json` (task -> column -> rows) or a `TOFU_EVAL.json` (see `open_unlearning`).

    Rows of the first are a dict keyed by the question's index (locuslab/tofu) or a plain list (NPO, the TIF release).
    Such a file says nothing about the model or its protocol, and nothing is guessed: the model is named after the file.

    Raises:
        ValueError: If a task has no such column, its columns have different rows, or a value is of the wrong kind.
    """
    if any(f"{prefix}_Q_A_{part}" in content for prefix in PREFIXES for part in ("Prob", "ROUGE")):
        return open_unlearning(content, path)
    tasks = {name: task for name, task in content.items() if name in TASKS}
    if not tasks:
        wanted = f"want tasks {', '.join(TASKS)}, or open-unlearning's forget_Q_A_Prob, ..."
        raise ValueError(f"{path}: not an evaluation log: {wanted}; got {', '.join(content)[:60]}")
    sets = (_record_set(TASKS[name], task, f"{path}: {name}") for name, task in tasks.items())
    return Evaluation(model=path.stem, sets={found.name: found for found in sets})


def open_unlearning(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Convert a `TOFU_EVAL.json` of locuslab/open-unlearning: metric -> {"agg_value", "value_by_index": {index: ...}}.

    The form is that of src/evals/metrics (read: memorization.py at 2db47ec, utils.py at 5420d43): `*_Prob` entries hold
    {"prob", "avg_loss"} (lists over the perturbed answers in `*_PERT_Prob`), `*_ROUGE` entries {"rouge1_recall", ...,
    "input", "ground_truth", "generation"}. So a set needs four entries: losses from its Prob, PARA_Prob (forget and
    retain only: the controls have no paraphrase) and PERT_Prob, texts from its ROUGE. All else in the file (truth
    ratios, model_utility, privleak, extraction_strength, ...) is not read; what follows from losses and texts is
    computed anew, without the 1e-10 that open-unlearning adds to denominators.

    The file has no token counts and no model family, and of its protocol only what its kind implies: a retain log of
    another family is not noticed. A log of which only the truth ratios were kept cannot be read: its questions are
    unknown.

    Raises:
        ValueError: If an entry of a set that is in the file is missing, or as `evaluation`.
    """
    sets = {}
    for prefix, name in PREFIXES.items():
        if f"{prefix}_Q_A_Prob" in content or f"{prefix}_Q_A_ROUGE" in content:
            sets[name] = _open_unlearning_set(prefix, name, content, path)
    model = path.parent.name if path.stem == "TOFU_EVAL" else path.stem
    return Evaluation(model=model or path.stem, sets=sets, protocol={"name": "open-unlearning"})


def _open_unlearning_set(prefix: str, name: str, content: Mapping[str, Any], path: Path) -> RecordSet:
    paraphrased = name in ("forget", "retain")
    parts = ("Prob", "ROUGE", "PERT_Prob", *(["PARA_Prob"] if paraphrased else []))
    table = {part: _values(content, f"{prefix}_Q_A_{part}", path) for part in parts}
    for part, rows in table.items():
        if rows.keys() != table["Prob"].keys():
            row = min(rows.keys() ^ table["Prob"].keys(), key=lambda key: (len(key), key))
            raise ValueError(
                f"{path}: {prefix}_Q_A_{part} has {len(rows)} rows, {prefix}_Q_A_Prob {len(table['Prob'])}: only one "
                f"of them has row {row}"
            )

    def cell(part: str, row: str, key: str) -> tuple[Any, str]:
        where = f"{path}: {prefix}_Q_A_{part}/value_by_index/{row}"
        fields = table[part][row]
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: want the values of a question, got {fields!r:.40}")
        return fields.get(key), f"{where}/{key}"

    return RecordSet(
        name,
        tuple(
            Record(
                id=f"{name}/{row}",
                prompt=text(*cell("ROUGE", row, "input")),
                answer=text(*cell("ROUGE", row, "ground_truth")),
                loss=number(*cell("Prob", row, "avg_loss")),
                tokens=None,
                paraphrased_loss=number(*cell("PARA_Prob", row, "avg_loss")) if paraphrased else None,
                perturbed_losses=numbers(*cell("PERT_Prob", row, "avg_loss")),
                generated=text(*cell("ROUGE", row, "generation")),
            )
            for row in table["Prob"]
        ),
    )


def _values(content: Mapping[str, Any], entry: str, path: Path) -> dict[str, Any]:
    if entry not in content:
        raise ValueError(f"{path}: {entry} is missing")
    found = content[entry]
    rows = found.get("value_by_index") if isinstance(found, dict) else None
    if not isinstance(rows, dict):
        raise ValueError(f"{path}: {entry}/value_by_index: want values by question, got {rows or found!r:.40}")
    return rows


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
