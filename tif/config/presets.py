"""What a run is where the words leave it open: its first file, its name, what its first line tells.

Called by load.py and by the commands that take a run's words (fit, identify).
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config import files, registry
from tif.config.errors import ConfigError
from tif.config.layers import (
    PRESET,
    flatten,
    is_preset,
    list_keys_of,
    list_overrides,
    read_file,
    read_layers,
    split_preset,
)
from tif.config.loss import Loss
from tif.config.schema import Config
from tif.utils.hashing import hash_json

QUICKSTART = "quickstart.yaml"
PARTS = ("loss/", "model/", "hardware/")  # folders of files that are no whole experiment
AUTO = "auto"  # run.name
LONGEST_NAME = 64  # bytes of a run's name with what the words change
LONGEST_START = 90  # of what stands before: with a hash and -2 it is within the 100 of run.name
IN_DERIVED_NAME = ("data.benchmark", "data.path", "data.split", "model.path", "model.base",
                   "loss.forget", "loss.on", "loss.lpl_baseline")  # fmt: skip


def complete_words(words: Sequence[str]) -> tuple[list[str], str]:
    """Return a run's words with a whole experiment's file first, and what to tell about that.

    Where none of the words is such a file: the file of the benchmark that `data.benchmark` or the
    kind of `data.path` names; the quickstart where the words name neither data nor a model.

    Raises:
        ConfigError: If they name a model and no data.
    """
    given = " ".join(word for word in words if files.is_file(word) or word.startswith(PRESET))
    if any(files.is_file(word) and not _is_part(word) for word in words):
        return list(words), given
    overrides, files_by_benchmark = list_overrides(words), _list_benchmarks("file")
    benchmark = overrides.get("data.benchmark") or None
    is_named = benchmark is not None
    if not is_named and overrides.get("data.path"):
        benchmark = _guess_benchmark(str(overrides["data.path"]))
    wants_model = (overrides.get("model.path") or overrides.get("model.base")
        or any(map(is_preset, words)))
    if benchmark is None and wants_model:
        raise ConfigError("data.benchmark: which data is the model to forget? want "
            f"{', '.join(files_by_benchmark)}, or a .yaml file")
    if benchmark is None or (benchmark == "fictitious" and not wants_model):
        first = f"{QUICKSTART} (no file and no data were named) {given}".rstrip()
        return [QUICKSTART, *words], first
    if str(benchmark) not in files_by_benchmark:
        return [*words], given  # the check of data.benchmark says so
    file = files_by_benchmark[benchmark]
    added = [] if is_named else [f"data.benchmark={benchmark}"]
    return [file, *words, *added], f"{file} (for data.benchmark={benchmark}) {given}".rstrip()


def _is_part(file: str) -> bool:
    return file.removeprefix("configs/").startswith(PARTS)


def _guess_benchmark(path: str) -> str:
    """Return the benchmark of a data.path that nobody named; a text unless it is a known name."""
    names = {hub.lower(): name for name, hub in _list_benchmarks("hub").items()}
    return names.get(path.rstrip("/").lower(), "text")


def _list_benchmarks(field: str) -> dict[str, str]:
    """Return by benchmark what it registered: `file`, which its runs begin with, or `hub`."""
    known = registry.entries("benchmark").items()
    return {name: getattr(reader, field) for name, reader in known}


def find_unused_preset(cfg: Config, words: Sequence[str]) -> list[str]:
    """Return the problem, if any, of model=NAME beside a configuration that has another model."""
    presets = [split_preset(word)[0] for word in words if is_preset(word)]
    if not presets:
        return []
    word = f"{PRESET}{presets[-1]}"
    if cfg.model.init:
        known = ", ".join(sorted(set(_list_benchmarks("file").values())))
        return [f"{word}: this configuration makes its own model (model.init); want a file that "
            f"takes one: {known}"]
    starts = {"model.path": cfg.model.path}
    for name in cfg.stages:
        starts[f"stages.{name}.model.path"] = _start_of(cfg, name).get("path")
    expected = {None, cfg.model.base, *cfg.stages}
    for folder in files.list_model_folders(presets[-1]):
        layers = read_file(f"model/{folder}/{presets[-1]}.yaml")
        expected.add(list_keys_of(layers).get("model.path"))
    for key, path in starts.items():
        if path not in expected and key not in list_overrides(words):
            return [f"{word}: the configuration has another model, {key}={path}; want {key}=... "
                f"for this one, or no {word}"]
    return []


def _start_of(cfg: Config, stage: str) -> dict[str, Any]:
    """Return the keys of a stage's section `model`."""
    keys = cfg.stages[stage]
    return (keys.get("model") or {}) if isinstance(keys, dict) else {}


def find_missing_start(cfg: Config) -> tuple[list[str], list[str]]:
    """Return the stages without a model to start from, and the problem where a run needs one.

    A benchmark's file describes stages that start from `model.base`; a run that names its model and
    its retain model's records needs none of them.
    """
    absent = []
    for name in cfg.stages:
        section = _start_of(cfg, name)
        has_start = cfg.model.base or cfg.model.init or section.get("init")
        if section.get("path", "") is None and not has_start:
            absent.append(name)
    if {cfg.model.path, cfg.stage} & set(absent):
        return absent, ["model.base: the stages start from it, got null; want model=NAME (a "
            "preset) or model.base=MODEL, or the model to unlearn as model.path=MODEL"]
    wants_retain = cfg.data.train == "forget" and cfg.eval.enabled and cfg.eval.forget_quality
    if wants_retain and cfg.eval.retain_records in absent:
        return absent, ["eval.retain_records: the retain model is made from model.base, got null; "
            "want model=NAME (a preset) or model.base=MODEL, the records of one as "
            "eval.retain_records=LOG, eval.retain_model=MODEL eval.retain_records=null, or "
            "eval.forget_quality=false"]
    return absent, []


def method_name(loss: Loss, train: str) -> str:
    """Return a short name of the method, as the files of configs/loss have: tpo_centred, npo_gdr.

    `train` is the key data.train.
    """
    if loss.task_vector is not None and train == "forget":
        return "task_vector"
    if loss.is_whp_at_inference(train):
        return "whp_inference"
    if loss.forget == "ce":
        return "finetune"
    parts = ["tpo" if (loss.forget, loss.preserve) == ("lpl", "pl") else loss.forget.split(":")[-1]]
    if loss.forget == "lpl" and getattr(loss, "lpl_baseline", "none") == "mean":
        parts.append("centred")
    if loss.forget != "lpl" and loss.on == "uw":
        parts.append("uw")
    parts += {"ce": ["gdr"], "kl": ["klr"]}.get(loss.retain, [])
    return "_".join(parts)


def data_name(cfg: Config) -> str:
    """Return a short name of what is forgotten: forget10, muse-news, the stem of a text."""
    data = cfg.data
    if data.benchmark == "tofu":
        return data.split or "forget10"
    if data.benchmark == "text" and data.path:
        return Path(data.path).stem
    parts = [data.benchmark, data.split if data.split != "forget" else None]
    return "_".join(part for part in parts if part)


def model_name(cfg: Config) -> str:
    """Return a short name of the pretrained model: the last part of model.base or model.path."""
    path = cfg.model.base or (None if cfg.model.path in cfg.stages else cfg.model.path)
    return Path(path).name if path else "new"


def name_run(cfg: Config, words: Sequence[str], unnamed: Sequence[str] = ()) -> str:
    """Return the run's name: its file's, or method, data and model, then what the words change.

    A name among the words, or one with a ${KEY}, stays as it is. A value that could hold a text,
    which no folder's name may show, is named by a hash.

    Args:
        cfg: with the key `run.name` as files and overrides have it.
        words: of the command.
        unnamed: overrides among them that the name leaves out.
    """
    before = flatten(dataclasses.asdict(Config()))
    before |= list_keys_of(read_layers([word for word in words if files.is_file(word)]))
    name, overrides = cfg.run.name, list_overrides(words)
    is_given = overrides.get("run.name", AUTO) != AUTO or "${" in before["run.name"]
    if is_given or "/" in name:  # as a sweep names its runs
        return name
    is_derived = name == AUTO
    if is_derived:
        parts = (method_name(cfg.loss, cfg.data.train), data_name(cfg), model_name(cfg))
        name = "_".join(map(_as_folder_name, parts))
    left_out = {*list_overrides(unnamed), *(IN_DERIVED_NAME if is_derived else ())}
    changes = _list_added_files(words, name, is_derived)
    after = flatten(dataclasses.asdict(cfg))
    for key in overrides:
        is_place = key.startswith(("run.", "logger.")) or key == "stage"
        is_named = key in after and (key == "run.seed" or not is_place) and key not in left_out
        if is_named and after[key] != before.get(key):
            label = key.partition(".")[2].replace(".", "-")
            changes.append(f"{label}{_describe_value(after[key])}")
    if (is_derived or changes) and len(name.encode()) > LONGEST_START:
        start = name.encode()[: LONGEST_START - 7].decode(errors="ignore")
        name = f"{start}_{hash_json(name)[:6]}"
    shown = changes = list(map(_as_folder_name, changes))
    while shown and len("_".join([name, *shown]).encode()) > LONGEST_NAME - 7 * (shown != changes):
        shown = shown[:-1]  # a hash of all changes stands for those that do not fit
    digits = [] if shown == changes else [hash_json(changes)[:6]]
    return "_".join([name, *shown, *digits])


def _list_added_files(words: Sequence[str], name: str, is_derived: bool) -> list[str]:
    """Return the stems of files beside the first experiment's, and the preset, not in the name."""
    paths = [word for word in words if files.is_file(word)]
    first = next((path for path in paths if not _is_part(path)), None)
    stems = [Path(path).stem for path in paths if path != first]
    for word in filter(is_preset, words):
        stems += split_preset(word)[1:] if is_derived else split_preset(word)
    return [stem for stem in stems if stem and stem not in name]


def _describe_value(value: Any) -> str:
    """Return a value for a run's name, as 1e-4, -mean or, where it may be a text, a hash."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        mantissa, _, exponent = f"{value:e}".partition("e")
        return min(f"{value:g}", f"{float(mantissa):g}e{int(exponent)}", key=len)
    text = str(value).rstrip("/").rpartition("/")[2].lower()
    is_short = not isinstance(value, list | dict) and re.fullmatch(r"[\w.-]{1,24}", text)
    return f"-{text}" if is_short else f"-{hash_json(value)[:6]}"


def _as_folder_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip(".-")[:40] or "run"
