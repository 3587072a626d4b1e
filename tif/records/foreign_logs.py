"""Convert the evaluation logs of other repositories to our records.

Called by `records.files.read_evaluation`. Known are the eval_log_aggregated.json of locuslab/tofu,
NPO and the TIF release, and the TOFU_EVAL.json of locuslab/open-unlearning.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from tif.data.samples import author_of_row
from tif.records.json_values import parse
from tif.records.types import Evaluation, Record, RecordSet

T = TypeVar("T")
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Losses = Annotated[list[Loss], Field(min_length=1)]
Text = Annotated[str, Field(pattern=r"\S")]  # not blank

TASKS = {
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
    "eval_log_forget.json": "forget",
}
# open-unlearning's prefixes of our sets
PREFIXES = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
Share = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(allow_inf_nan=False)]
MEMORIZATION = ("exact_memorization", "extraction_strength")  # of the forget set; our names too
ATTACKS = {  # open-unlearning's names of our membership attacks
    "mia_loss": "loss", "mia_zlib": "zlib", "mia_min_k": "min_k",
    "mia_min_k_plus_plus": "min_k_plus_plus", "mia_reference": "reference",
    "mia_gradnorm": "gradient_norm",
}  # fmt: skip


def convert_log(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Convert an eval_log_aggregated.json (task -> column -> rows) or a TOFU_EVAL.json.

    Rows of the first are a dict keyed by the question's index (locuslab/tofu) or a list (NPO, the
    TIF release). Such a file names neither the model, which is named after the file, nor its
    rules: its form says whose code wrote it. A ValueError names file, task, column and row.
    """
    sets = {}
    if any(_has_metrics(content, prefix) for prefix in PREFIXES):
        if TASKS.keys() & content.keys():
            raise ValueError(f"{path}: has tasks of locuslab/tofu and of open-unlearning")
        return convert_open_unlearning(content, path)
    for task, columns in content.items():
        if task in TASKS:
            sets[TASKS[task]] = _convert_task(TASKS[task], columns, path, task)
    if not sets:
        wanted = f"want tasks {', '.join(TASKS)}, or open-unlearning's forget_Q_A_Prob, ..."
        raise ValueError(f"{path}: not an evaluation log: {wanted}; got {', '.join(content)[:60]}")
    return Evaluation(model=path.stem, sets=sets, protocol={"name": "legacy-tofu"})


def _key_by_index(rows: Any) -> Any:
    """Return a list of rows as a dict, as locuslab/tofu writes it."""
    return {str(i): row for i, row in enumerate(rows)} if isinstance(rows, list) else rows


def _check_texts(texts: list[str]) -> list[str]:
    if not (texts[0].strip() and texts[-1].strip()):
        raise ValueError("want a prompt and an answer that are not blank")
    return texts


Texts = Annotated[list[str], Field(min_length=3, max_length=3), AfterValidator(_check_texts)]
Rows = Annotated[dict[str, T], BeforeValidator(_key_by_index)]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of an eval_log_aggregated.json: its columns that we read.

    generated_text has [prompt, generation, answer] in each row.
    """

    avg_gt_loss: Rows[Loss]
    num_token_gt: Rows[Annotated[float, Field(ge=1, multiple_of=1)]]
    avg_paraphrased_loss: Rows[Loss]
    average_perturb_loss: Rows[Losses]
    generated_text: Rows[Texts]


def _convert_task(name: str, content: Any, path: Path, task_name: str) -> RecordSet:
    task: Task = parse(Task, content, path, task_name)
    _check_same_rows(vars(task), f"{path}: {task_name}/")
    _check_same_counts(task.average_perturb_loss, f"{path}: {task_name}/average_perturb_loss")
    records = []
    for row, loss in task.avg_gt_loss.items():
        prompt, generated, answer = task.generated_text[row]
        # On the controls the paraphrased answer is the original once more, up to 0.09 off through
        # half precision. The authors aggregate it as recorded, and so do we.
        paraphrased, wrong = task.avg_paraphrased_loss[row], tuple(task.average_perturb_loss[row])
        tokens, record_id = int(task.num_token_gt[row]), f"{name}/{row}"
        records.append(Record(
            record_id, prompt, answer, loss, tokens, paraphrased, wrong, generated,
            group=_group_of_row(name, row),
        ))  # fmt: skip
    return RecordSet(name, tuple(records))


def _group_of_row(name: str, row: str) -> str | None:
    """Return the author of a row, which both projects count from 0; None for the controls."""
    has_authors = name in ("forget", "retain") and row.isdecimal()
    return author_of_row(int(row)) if has_authors else None


def _check_same_rows(columns: Mapping[str, Mapping[str, Any]], place: str) -> None:
    """Raise ValueError unless all columns have the rows of the first."""
    first_name, *_ = columns
    first = columns[first_name]
    for name, rows in columns.items():
        different = sorted(rows.keys() ^ first.keys(), key=lambda row: (len(row), row))
        if different:
            raise ValueError(
                f"{place}{name} has {len(rows)} rows, {first_name} {len(first)}: only one of them "
                f"has row {different[0]}"
            )


def _check_same_counts(rows: Mapping[str, list[float]], place: str) -> None:
    """Raise ValueError unless all questions have as many wrong answers as most of them."""
    counts = Counter(len(losses) for losses in rows.values())
    for row, losses in rows.items():
        usual = counts.most_common(1)[0][0]
        if len(losses) != usual:
            raise ValueError(
                f"{place}/{row} has {len(losses)} losses, want {usual} as in the other rows"
            )


@dataclasses.dataclass(frozen=True)
class Question:
    """Texts of a question in open-unlearning's *_ROUGE."""

    input: Text
    ground_truth: Text
    generation: str


def convert_open_unlearning(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Convert a TOFU_EVAL.json: metric -> {"agg_value", "value_by_index": {index: ...}}.

    The form is that of open-unlearning's src/evals/metrics (memorization.py at 2db47ec, utils.py
    at 5420d43). A set needs four metrics: losses from its Prob, PARA_Prob (forget and retain only:
    the controls have no paraphrase) and PERT_Prob, texts from its ROUGE. What follows from losses
    and texts is computed again, as open-unlearning does. Read as they are, where the file has them:
    extraction strength and exact memorization of each forget answer, the scores behind each
    membership attack, and PrivLeak (whose retain model the file does not name).

    The file has no token counts and no model family, so a retain log of another family is noticed
    by its prompts alone. A log that kept only the truth ratios cannot be read: its questions are
    unknown.
    """
    sets = {}
    for prefix, name in PREFIXES.items():
        if _has_metrics(content, prefix):
            sets[name] = _convert_set(f"{prefix}_Q_A_", name, content, path)
    model = path.parent.name if path.stem == "TOFU_EVAL" else path.stem
    attack_scores = {}
    for key, attack in ATTACKS.items():
        if key in content:
            attack_scores[attack] = _parse_attack(content[key], key, path)
    logged = {}
    if "privleak" in content:
        aggregate = parse(dict[str, Score | None], content["privleak"], path, "privleak")
        if aggregate.get("agg_value") is not None:
            logged["privleak"] = float(aggregate["agg_value"] or 0.0)
    protocol = {"name": "open-unlearning"}
    return Evaluation(
        model or path.stem, sets, protocol=protocol, attack_scores=attack_scores, logged=logged
    )


def _has_metrics(content: Mapping[str, Any], prefix: str) -> bool:
    """Return whether one of the metrics is there that a set needs."""
    kinds = ("Prob", "PARA_Prob", "PERT_Prob", "ROUGE")
    return any(f"{prefix}_Q_A_{kind}" in content for kind in kinds)


def _convert_set(prefix: str, name: str, content: Mapping[str, Any], path: Path) -> RecordSet:
    kinds: dict[str, Any] = {"Prob": Loss, "ROUGE": Question, "PERT_Prob": Losses}
    if name in ("forget", "retain"):
        kinds["PARA_Prob"] = Loss
    metrics: dict[str, dict[str, Any]] = {}
    for metric, kind in kinds.items():
        metrics[prefix + metric] = _parse_metric(content, prefix + metric, kind, path)
    _check_same_rows(metrics, f"{path}: ")
    losses, texts, wrong, *paraphrased = metrics.values()
    logged = _parse_memorization(content, losses, path) if name == "forget" else {}
    _check_same_counts(wrong, f"{path}: {prefix}PERT_Prob/value_by_index")
    records = []
    for row, loss in losses.items():
        record = Record(
            id=f"{name}/{row}",
            prompt=texts[row].input,
            answer=texts[row].ground_truth,
            loss=loss,
            tokens=None,
            paraphrased_loss=paraphrased[0][row] if paraphrased else None,
            perturbed_losses=tuple(wrong[row]),
            generated=texts[row].generation,
            logged={metric: scores[row] for metric, scores in logged.items()},
            group=_group_of_row(name, row),
        )
        records.append(record)
    return RecordSet(name, tuple(records))


def _parse_memorization(
    content: Mapping[str, Any], losses: Mapping[str, Any], path: Path
) -> dict[str, dict[str, float]]:
    """Return by metric the scores of the forget answers, of the metrics that the file has."""
    scores = {}
    for key in MEMORIZATION:
        if key in content:
            scores[key] = _parse_scores(content[key], Share, path, key)
    _check_same_rows({"forget_Q_A_Prob": losses, **scores}, f"{path}: ")
    return scores


def _parse_attack(
    block: Any, key: str, path: Path
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scores of the forget and the holdout texts under a membership attack."""
    fields: dict[str, Any] = parse(dict[str, Any], block, path, key)
    forget, holdout = (
        tuple(_parse_scores(fields.get(name), Score, path, key, name).values())
        for name in ("forget", "holdout")
    )
    if not (forget and holdout):
        raise ValueError(f"{path}: {key}: want forget and holdout texts, got none of one of them")
    return forget, holdout


def _parse_scores(metric: Any, kind: Any, path: Path, *keys: str) -> dict[str, float]:
    """Return the `score` of each entry of a metric's `value_by_index`."""
    rows = metric.get("value_by_index") if isinstance(metric, dict) else metric
    place, scores = (*keys, "value_by_index"), {}
    for row, fields in parse(dict[str, dict[str, Any]], rows, path, *place).items():
        scores[row] = float(parse(kind, fields.get("score"), path, *place, row, "score"))
    return scores


def _parse_metric(content: Mapping[str, Any], key: str, kind: Any, path: Path) -> dict[str, Any]:
    """Return a metric's values by question; of a Prob its `avg_loss`."""
    if key not in content:
        raise ValueError(f"{path}: {key} is missing")
    rows = content[key].get("value_by_index") if isinstance(content[key], dict) else content[key]
    place = (path, key, "value_by_index")
    if kind is Question:
        questions: dict[str, Any] = parse(dict[str, Question], rows, *place)
        return questions
    values = {}
    for row, fields in parse(dict[str, dict[str, Any]], rows, *place).items():
        values[row] = parse(kind, fields.get("avg_loss"), *place, row, "avg_loss")
    return values
