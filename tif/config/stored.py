"""Which keys of a run's config.yaml count when the run is looked at: chat, audit, `tif.Run`.

The file of somebody else's run is data. A key counts if it says what the run read, how its model is
loaded and how it is asked. A key that would import a module, trust code, ask a server or name a
place to write to does not: what needs one of these is asked for on the command line, or as an
argument in Python. So the keys of an identifier count unless it loads a model or asks a server.
`tif fit RUN/config.yaml` is the user's own act, and reads all keys.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from tif.config.check import brief
from tif.config.errors import ConfigError
from tif.config.registry import entries

COUNTED = (
    "run.seed",
    "data.benchmark", "data.path", "data.split", "data.holdout", "data.split_text",
    "data.max_retain", "data.train", "data.request", "data.template", "data.chat.system",
    "data.chat.date", "data.chat.kwargs", "data.max_tokens", "data.overlap", "data.batch_size",
    "data.max_tokens_per_batch", "data.batching", "data.fictitious.authors",
    "data.fictitious.questions_per_author", "data.fictitious.forget_share", "data.fictitious.seed",
    "data.fictitious.shared_facts", "data.fictitious.interleaved", "data.fictitious.language",
    "data.fictitious.wordings", "data.fictitious.forget_wordings",
    "identifier.kind", "identifier.path", "identifier.words", "identifier.patterns",
    "identifier.rule", "identifier.grow",
    "model.path", "model.tokenizer", "model.dtype", "model.attention",
    "optimizer.lr",
    "trainer.accelerator",
    "eval.protocol", "eval.paraphrased_questions", "eval.max_samples.forget",
    "eval.max_samples.retain", "eval.max_samples.real_authors", "eval.max_samples.world_facts",
    "eval.max_new_tokens", "eval.tokens_per_batch", "eval.retain_records", "eval.retain_model",
    "stages",
)  # fmt: skip
# A section stands for all of its keys.
DROPPED = (
    "run.name", "run.folder", "run.resume", "run.keep_checkpoints", "run.checkpoint_every_n_steps",
    "run.checkpoint_every_n_seconds",
    "run.export",
    "identifier.device", "identifier.dtype", "identifier.tokens_per_batch",
    "model.base", "model.init", "model.reference", "model.lora", "model.quantize",
    "model.gradient_checkpointing", "model.trust_remote_code",
    "loss",
    "optimizer.name", "optimizer.weight_decay", "optimizer.warmup_epochs", "optimizer.decay",
    "trainer.max_epochs", "trainer.devices", "trainer.strategy", "trainer.precision",
    "trainer.gradient_clip_val", "trainer.log_every_n_steps",
    "eval.benchmarks", "eval.tofu", "eval.muse_news", "eval.muse_books", "eval.lume", "eval.text",
    "eval.lm_eval", "eval.enabled", "eval.before_training", "eval.every_n_epochs",
    "eval.forget_quality", "eval.kl", "eval.best", "eval.audit", "eval.stop_on", "eval.samples",
    "logger",
    "tofu",
    "stage",
)  # fmt: skip
SECTIONS = {key.rpartition(".")[0] for key in COUNTED}


def is_counted(key: str) -> bool:
    """Return whether a key of the schema counts."""
    return key in COUNTED or key in _list_identifier_keys(costly=False)


def is_dropped(key: str) -> bool:
    """Return whether a key of the schema, or its section, is dropped."""
    is_listed = any(key == name or key.startswith(f"{name}.") for name in DROPPED)
    return is_listed or key in _list_identifier_keys(costly=True)


def _list_identifier_keys(costly: bool) -> set[str]:
    """Return the keys in the sections of identifiers.

    `costly`: of those that load a model or ask a server. The keys of all others count.
    """
    keys: set[str] = set()
    for name, entry in entries("identifier").items():
        if cast(Any, entry).is_costly == costly:
            keys |= {f"identifier.{name}.{field.name}" for field in fields(entry.keys)}
    return keys


def _is_section(key: str) -> bool:
    """Return whether a section holds keys that count."""
    local = _list_identifier_keys(costly=False)
    return key in SECTIONS or any(name.startswith(f"{key}.") for name in local)


def select_counted(content: Mapping[str, Any], name: str, section: str = "") -> dict[str, Any]:
    """Return the keys of a stored configuration that count, in their sections.

    Of `stages` the names count. A kernel of the hub as `model.attention` does not: it is code.

    Args:
        content: of the file, or of a section of it.
        name: of the file, for errors.
        section: where the keys stand, as "data.".

    Raises:
        ConfigError: If a value that counts holds a ${...}: a file that tif wrote has none.
    """
    selected: dict[str, Any] = {}
    for own_name, value in content.items():
        key = f"{section}{own_name}"
        if key == "stages" and isinstance(value, Mapping):
            selected[key] = dict.fromkeys(value)
        elif key == "model.attention" and not re.fullmatch(r"\w+", str(value)):
            continue
        elif is_counted(key):
            if "${" in repr(value):
                raise ConfigError(f"{name}: {key}: want plain values, got {brief(value)}; a run's "
                    "file holds no ${...}")
            selected[own_name] = value
        elif _is_section(key):
            is_section = isinstance(value, Mapping)
            selected[own_name] = (
                select_counted(value, name, f"{key}.") if is_section else value
            )
    return selected
