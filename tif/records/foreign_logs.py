"""Convert the evaluation logs of other repositories to our records.

Known are the eval_log_aggregated.json of locuslab/tofu, NPO and the TIF release, and the
TOFU_EVAL.json of locuslab/open-unlearning.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
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
class _Task:
    """A task of an eval_log_aggregated.json: its columns that we read.

    generated_text has [prompt, generation, answer] in each row.
    """

    avg_gt_loss: Rows[Loss]
    num_token_gt: Rows[Annotated[float, Field(ge=1, multiple_of=1)]]
    avg_paraphrased_loss: Rows[Loss]
    average_perturb_loss: Rows[Losses]
    generated_text: Rows[Texts]


def _convert_task(name: str, content: Any, path: Path, task_name: str) -> RecordSet:
    task: _Task = parse(_Task, content, path, task_name)
    _check_same_rows(vars(task), f"{path}: {task_name}/")
    _check_same_counts(task.average_perturb_loss, f"{path}: {task_name}/average_perturb_loss")
    tokens = {row: int(count) for row, count in task.num_token_gt.items()}
    # On the controls the paraphrased answer is the original once more, up to 0.09 off through
    # half precision. The authors aggregate it as recorded, and so do we.
    columns: dict[str, Mapping[str, Any]] = {"tokens": tokens}
    columns["paraphrased_loss"] = task.avg_paraphrased_loss
    losses, wrong = task.avg_gt_loss, task.average_perturb_loss
    return _make_set(name, losses, wrong, task.generated_text, columns)


def _make_set(
    name: str, losses: Mapping[str, float], wrong: Mapping[str, list[float]],
    texts: Mapping[str, Sequence[str]], columns: Mapping[str, Mapping[str, Any]],
) -> RecordSet:  # fmt: skip
    """Return the records of rows; `texts`: prompt, generation, answer; `columns`: other fields."""
    records = []
    for row, loss in losses.items():
        prompt, generated, answer = texts[row]
        others = {"tokens": None} | {field: values[row] for field, values in columns.items()}
        records.append(Record(
            f"{name}/{row}", prompt, answer, loss, perturbed_losses=tuple(wrong[row]),
            generated=generated, group=_group_of_row(name, row), **others,
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
class _Texts:
    """Texts of a question in open-unlearning's *_ROUGE."""

    input: Text
    generation: str
    ground_truth: Text


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
            fields = parse(dict[str, Any], content[key], path, key)
            scores = [
                tuple(_parse_rows(fields.get(kind), Score, "score", path, key, kind).values())
                for kind in ("forget", "holdout")
            ]
            if not all(scores):
                wanted = "want forget and holdout texts, got none of one of them"
                raise ValueError(f"{path}: {key}: {wanted}")
            attack_scores[attack] = scores[0], scores[1]
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
    kinds: dict[str, Any] = {"Prob": Loss, "ROUGE": _Texts, "PERT_Prob": Losses}
    if name in ("forget", "retain"):
        kinds["PARA_Prob"] = Loss
    metrics: dict[str, dict[str, Any]] = {}
    for ending, kind in kinds.items():
        key = prefix + ending
        if key not in content:
            raise ValueError(f"{path}: {key} is missing")
        field = None if kind is _Texts else "avg_loss"
        metrics[key] = _parse_rows(content[key], kind, field, path, key)
    _check_same_rows(metrics, f"{path}: ")
    losses, texts, wrong, *paraphrased = metrics.values()
    columns = {"paraphrased_loss": paraphrased[0]} if paraphrased else {}
    logged: dict[str, dict[str, float]] = {}
    for key in MEMORIZATION if name == "forget" else ():
        if key in content:
            logged[key] = _parse_rows(content[key], Share, "score", path, key)
    _check_same_rows({"forget_Q_A_Prob": losses, **logged}, f"{path}: ")
    if logged:
        columns["logged"] = {row: {key: logged[key][row] for key in logged} for row in losses}
    _check_same_counts(wrong, f"{path}: {prefix}PERT_Prob/value_by_index")
    texts = {row: dataclasses.astuple(text) for row, text in texts.items()}
    return _make_set(name, losses, wrong, texts, columns)


def _parse_rows(
    metric: Any, kind: Any, field: str | None, path: Path, *keys: str
) -> dict[str, Any]:
    """Return the entries of a metric's `value_by_index`, or of each its `field`."""
    rows = metric.get("value_by_index") if isinstance(metric, dict) else metric
    place = (*keys, "value_by_index")
    if field is None:
        return dict(parse(dict[str, kind], rows, path, *place))
    values = {}
    for row, fields in parse(dict[str, dict[str, Any]], rows, path, *place).items():
        values[row] = parse(kind, fields.get(field), path, *place, row, field)
    return values
