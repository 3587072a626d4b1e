"""What Weights & Biases is told of a run: numbers, tables of samples, and pieces of its lineage.

Called by `wandb_run` and by those who log. W&B itself is needed for artifacts only.
"""

import dataclasses
import json
import math
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tif.data.samples import Benchmark, Sample, fingerprint
from tif.metrics.registry import find_metric
from tif.records.files import read_evaluation
from tif.records.run_folder import read_config
from tif.records.types import PARAPHRASED, Evaluation
from tif.reports.columns import count_units
from tif.reports.evaluation import list_rows
from tif.reports.run_tables import spread_indices
from tif.utils.environment import describe_environment
from tif.utils.hashing import hash_json

SAMPLE_COLUMNS = ("set", "id", "question", "answer", "unwanted", "model's answer", "probability")
ENVIRONMENT = ("tif", "commit", "python", "packages", "host")
LONGEST_NAME = 128  # of an artifact


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of the lineage: data -> spans -> target -> unlearned model -> records, report."""

    name: str  # of the artifact
    type: str  # data, spans, model, records, report or audit
    # what tells one version from another. Two runs that name the same facts and path mean the same
    # version, which is how W&B connects them
    facts: Mapping[str, Any]
    path: Path | None = None  # file or folder, named by its path or uploaded; None = there is none
    aliases: Sequence[str] = ()  # further names of this version


@dataclasses.dataclass(frozen=True)
class Content:
    """What a command logs."""

    numbers: Mapping[str, float]  # by their stable names
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]  # columns and rows by name
    # what it read and what it made
    inputs: Sequence[Piece] = ()
    outputs: Sequence[Piece] = ()


def make_artifact(piece: Piece, upload: Collection[str]) -> Any:
    """Return a piece as a W&B artifact, whose files are uploaded if `upload` names its type."""
    import wandb

    name = re.sub(r"[^\w.-]", "-", piece.name, flags=re.ASCII)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 7]}-{hash_json(piece.name)[:6]}"
    place = {"path": str(piece.path.resolve())} if piece.path else {}
    artifact = wandb.Artifact(name, piece.type, metadata={**piece.facts, **place})
    with artifact.new_file("facts.json") as file:  # so that other facts are another version
        file.write(json.dumps(piece.facts, sort_keys=True, indent=1))
    if piece.path is None or not piece.path.exists():
        return artifact
    path = piece.path.resolve()
    if piece.type not in upload:
        # Without checksums: a large model is not read. The facts hold checksums of its beginnings.
        artifact.add_reference(path.as_uri(), checksum=False)
    elif path.is_dir():
        artifact.add_dir(str(path), policy="immutable")  # uploaded from where it is, no copy
    else:
        artifact.add_file(str(path), policy="immutable")
    return artifact


def data_piece(benchmark: Benchmark) -> Piece:
    """Return the data of a run, by its fingerprint; texts are not in it."""
    samples = (*benchmark.background, *benchmark.retain, *benchmark.forget)
    counts = {name: len(group) for name, group in benchmark.sets.items()}
    facts = {
        "benchmark": benchmark.name,
        "fingerprint": fingerprint(samples),
        "forget": len(benchmark.forget),
        "retain": len(benchmark.retain),
        "evaluation": counts,
    }
    return Piece(f"data-{short_name(benchmark)}", "data", facts)


def short_name(benchmark: Benchmark) -> str:
    """Return a benchmark's name without settings, as fictitious or tofu/forget05."""
    parts = [part for part in benchmark.name.split("/") if "=" not in part]
    return "/".join(parts) or benchmark.name


def spans_piece(benchmark: Benchmark, path: Path | None) -> Piece:
    """Return the unwanted spans of a benchmark's forget samples; `path`: their span file."""
    spans = []
    for sample in benchmark.forget:
        spans.append([sample.id, [[span.start, span.end] for span in sample.unwanted or ()]])
    facts = {"samples": len(spans), "fingerprint": hash_json(spans)}
    file = path if path and path.is_file() else None
    return Piece(f"spans-{short_name(benchmark)}", "spans", facts, file)


def model_piece(path: Path, aliases: Sequence[str] = ()) -> Piece:
    """Return a model: a folder, or the name of one on the hub."""
    if not path.is_dir():
        return Piece(f"model-{path}", "model", {"hub": str(path)})
    is_export = path.name.startswith("model")  # model/ or model_best/ of a run
    name = name_run(path.resolve().parent) if is_export else path.name
    files = {}
    for file in sorted(path.iterdir()):
        if file.suffix in (".safetensors", ".json"):
            with file.open("rb") as opened:
                files[file.name] = [file.stat().st_size, zlib.crc32(opened.read(2**20))]
    return Piece(f"model-{name}", "model", {"files": files}, path, aliases)


def records_piece(name: str, path: Path) -> Piece:
    """Return the records of evaluations in a folder."""
    files = {}
    for file in sorted(filter(Path.is_file, path.rglob("*.json*"))):  # a pipe would never end
        files[str(file.relative_to(path))] = zlib.crc32(file.read_bytes())
    return Piece(f"records-{name}", "records", {"files": hash_json(files)}, path)


def report_piece(folder: Path) -> Piece | None:
    """Return the report of a run; None where there is none."""
    path = folder / "report.html"
    if not path.is_file():
        return None
    facts = {"file": zlib.crc32(path.read_bytes())}
    return Piece(f"report-{name_run(folder)}", "report", facts, path)


def sample_rows(
    evaluation: Evaluation, count: int, unwanted: Mapping[str, Sequence[str]]
) -> list[list[Any]]:
    """Return `count` questions of each set, spread evenly, as rows of SAMPLE_COLUMNS."""
    rows = []
    for name, records in evaluation.sets.items():
        if name.endswith(PARAPHRASED):
            continue
        for index in spread_indices(len(records.records), count):
            record = records.records[index]
            words = ", ".join(unwanted.get(record.id, ()))
            probability = math.exp(-record.loss)
            texts = [record.prompt, record.answer, words, record.generated]
            rows.append([name, record.id, *texts, probability])
    return rows


def span_table(samples: Sequence[Sample], count: int) -> tuple[Sequence[str], list[list[Any]]]:
    """Return columns and rows of `count` samples, spread evenly, with their unwanted words."""
    rows = []
    for index in spread_indices(len(samples), count):
        sample = samples[index]
        words = ", ".join(unwanted_words([sample])[sample.id])
        rows.append([sample.id, sample.prompt, sample.answer, words])
    return ("id", "question", "answer", "unwanted"), rows


def unwanted_words(samples: Iterable[Sample]) -> dict[str, list[str]]:
    """Return the unwanted words of samples, in the answer's order, by sample id."""
    words = {}
    for sample in samples:
        words[sample.id] = [sample.answer[span.start : span.end] for span in sample.unwanted or ()]
    return words


def evaluation_content(results: Mapping[str, Any], model: str | None, samples: int) -> Content:
    """Return what `tif evaluate` logs: numbers, their table with intervals, questions, records.

    Args:
        results: content of `--json`.
        model: the key model.path; None = only records were read.
        samples: questions of each set in the tables of samples.
    """
    benchmarks = results.get("benchmarks") or {"": results}
    numbers, rows = {}, []
    tables: dict[str, Any] = {}
    outputs = []
    for name, content in benchmarks.items():
        # As in a run: the metrics of the only benchmark have no prefix.
        prefix = f"{name}/" if len(benchmarks) > 1 and name != "lm-eval" else ""
        for row in list_rows(content):
            low, high = row.interval or (None, None)
            units = content.get("groups", {}).get(row.name.partition("/")[0], {})
            metric = find_metric(row.name)
            better = metric.arrow(row.name) if metric else ""
            rows.append([name, row.name, better, row.value, low, high, count_units(units)])
            if row.value is not None:
                numbers[prefix + row.name] = row.value
        if "folder" in content:
            folder = Path(content["folder"])
            outputs.append(records_piece(f"{folder.parent.name}-{name}", folder))
            if samples:
                questions = sample_rows(read_evaluation(folder), samples, {})
                tables[f"{prefix}samples"] = SAMPLE_COLUMNS, questions
    columns = ("benchmark", "metric", "better", "value", "low", "high", "over")
    tables["numbers"] = columns, rows
    inputs = [model_piece(Path(model).expanduser())] if model else []
    return Content(numbers, tables, inputs, outputs)


def flatten_numbers(values: Any, prefix: str) -> dict[str, float]:
    """Return the finite numbers of nested mappings by the path of their keys, joined by "/"."""
    if isinstance(values, bool) or values is None:
        return {}
    if isinstance(values, int | float):
        return {prefix: values} if math.isfinite(values) else {}
    numbers: dict[str, float] = {}
    if isinstance(values, Mapping):
        for name, value in values.items():
            numbers |= flatten_numbers(value, f"{prefix}/{name}" if prefix else str(name))
    return numbers


def without_texts(config: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """Return a configuration with what it runs on, and without listed words if `samples` is 0."""
    environment = describe_environment()
    keys = dict(config) | {"environment": {name: environment[name] for name in ENVIRONMENT}}
    words = keys.get("identifier", {}).get("words")
    if words and samples == 0:
        hidden = f"{len(words)} entries, not sent (logger.wandb.samples=0)"
        keys["identifier"] = {**keys["identifier"], "words": hidden}
    return keys


def group_of(run: Path | str) -> str:
    """Return the W&B group of a run, by its folder or its name: its sweep's name, or its own."""
    return (_read_name(run) if isinstance(run, Path) else run.split("/"))[0]


def name_run(folder: Path) -> str:
    """Return what artifacts of a run are called by: its folder, after its sweep and its variant."""
    return "-".join([*_read_name(folder)[:-1], folder.name])


def describe_variant(name: str) -> dict[str, str]:
    """Return `sweep` and `variant` of a run's name, to group by; nothing for another run."""
    return dict(zip(("sweep", "variant"), name.split("/")[:-1], strict=False))


def _read_name(folder: Path) -> list[str]:
    """Return the parts of a run's name: sweep, variant and seed of a sweep's run, else one."""
    name = read_config(folder).get("run", {}).get("name")
    return str(name or folder.name).split("/")
