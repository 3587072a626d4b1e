"""`tif.unlearn`: from samples and a model to a finished run, as `tif fit` makes it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tif.api import settings as words
from tif.api.run import Run
from tif.api.samples import Samples, list_files, write_files
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.presets import complete_words
from tif.config.registry import Entry
from tif.config.schema import Config


def unlearn(
    model: str | Path | Run | None = None,
    forget: Samples | None = None,
    retain: Samples | None = None,
    method: str | Entry | None = None,
    identifier: words.IdentifierLike | None = None,
    settings: Sequence[str] | str = (),
    **keys: Any,
) -> Run:
    """Make a model forget samples and keep others; return the finished run.

    The run is the one of `tif fit`: the same checks, files and numbers, and its
    config.yaml repeats it. It trains in this process on one device, evaluates each epoch, and
    leaves its folder in runs/ (`run={"folder": ..., "name": ...}`). Signal handlers and random
    states are afterwards what they were. Samples are written to <run.folder>/data.

    Args:
        model: Hugging Face folder or hub name, name of a preset ("smollm2_135m", see `tif ls
            models`), or a run, whose unlearned model it starts from.
        forget: what the model must forget: a list whose entries are texts, pairs (question,
            answer), dicts as the rows of a .jsonl, or `tif.Sample`s; or the path of a .txt, .jsonl
            or .json file. [[Double brackets]] mark unwanted words. None = as `settings` say.
        retain: what it must keep, in the same forms: what is evaluated, and drawn from where the
            method has a retain term.
        method: name of a file in configs/loss ("tpo", "npo_gdr"), a YAML file, or a function under
            `@tif.term`. None = as `settings` say, else TPO on centred logits (text.yaml).
        identifier: who says which words are unwanted: a kind ("masked_lm", "all"), a list of words
            and patterns, or a dict of section `identifier`. None = the marks in the samples.
        settings: further words of the command line: files and `key=value`.
        keys: keys of the configuration: sections with dicts, or dotted names, as
            `optimizer={"lr": 1e-4}, **{"trainer.max_epochs": 5}`.

    Raises:
        ConfigError: With one line for each problem, before weights load.
        FloatingPointError: If the loss is not finite; the run's folder stays.
        Preempted: If the run was interrupted; the same call goes on from there.
    """
    sets = {"forget": forget, "retain": retain}
    samples = {name: content for name, content in sets.items() if content is not None}
    given = [
        *words.describe_model(model), *words.describe_identifier(identifier),
        *words.read_words(settings), *words.describe_method(method), *words.list_words(keys),
    ]  # fmt: skip
    defaults = words.list_words(_list_defaults(given, samples))
    loading = partial(_load, [*defaults, *given], defaults)
    files, (cfg, preset) = words.call_all(partial(list_files, samples), loading)
    if files:
        cfg.data.path = str(write_files(files, Path(cfg.run.folder) / "data"))
    # Lightning loads only now, so that wrong keys are answered at once.
    from tif.audit.run import audit_finished_run
    from tif.training.run import run
    from tif.training.sources import check_sources

    check_sources(cfg)
    return Run(run(cfg, preset, [audit_finished_run]), cfg.model.trust_remote_code)


def _list_defaults(overrides: Sequence[str], samples: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys that a call from Python sets where the words do not."""
    defaults: dict[str, Any] = {"trainer.devices": "1"}
    if samples:
        defaults |= {"data.benchmark": "text", "data.path": "samples"}  # a folder for both, later
        if not words.has_key(overrides, "eval.retain_records"):
            defaults["eval.forget_quality"] = False  # nothing to compare with
    return {key: value for key, value in defaults.items() if not words.has_key(overrides, key)}


def _load(words_of_run: Sequence[str], unnamed: Sequence[str]) -> tuple[Config, str]:
    """Return the checked configuration and what to tell about its preset.

    `unnamed`: words that the run's name leaves out.
    """
    complete, preset = complete_words(words_of_run)
    cfg = config.load(complete, unnamed)
    if cfg.trainer.devices != "1":
        problem = f"trainer.devices: Python trains on 1 device, got {cfg.trainer.devices}"
        raise ConfigError(f"{problem}; want 1, or tif fit with the config.yaml of such a run")
    return cfg, preset
