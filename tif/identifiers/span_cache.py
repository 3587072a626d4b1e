"""Span files beside the runs: the spans of costly identifiers are made once, then read.

Called by `training/run` before a run that reads unwanted words, and by `tif identify`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tif import identifiers
from tif._version import VERSION
from tif.config.errors import ConfigError, one_line
from tif.config.schema import Identifier, Model
from tif.data.samples import Sample, fingerprint
from tif.data.templates import Prompts
from tif.identifiers import span_file
from tif.identifiers.registration import get_kind, list_model_paths
from tif.utils.files import locked, read_bytes
from tif.utils.hashing import hash_json, list_model_files

RUN_SPANS = "spans.jsonl"  # in a run folder


def complete_identifier(identifier: Identifier, model: Model) -> Identifier:
    """Return section `identifier` with the models that it takes from section `model`."""
    values = {}
    for key in get_kind(identifier.kind).models:
        if key.stand_in and not getattr(identifier.chosen_keys(), key.name):
            values[key.name] = getattr(model, key.stand_in)
    return _replace_keys(identifier, values)


def _replace_keys(identifier: Identifier, values: Mapping[str, Any]) -> Identifier:
    """Return section `identifier` with other values of the chosen identifier's keys."""
    if not values:
        return identifier
    section = dataclasses.replace(identifier.chosen_keys(), **values)
    return dataclasses.replace(identifier, **{identifier.kind: section})


def list_stages(identifier: Identifier, stages: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the stages whose models a complete identifier asks, each once."""
    paths = list_model_paths(identifier).values()
    return tuple(dict.fromkeys(path for path in paths if path in stages))


def with_stage_models(identifier: Identifier, stages: Mapping[str, Path]) -> Identifier:
    """Return a complete identifier with names of `stages` replaced by their models' folders."""
    folders = {}
    for key in get_kind(identifier.kind).models:
        path = getattr(identifier.chosen_keys(), key.name)
        if path in stages:
            folders[key.name] = str(stages[path] / "model")
    return _replace_keys(identifier, folders)


def identify_once(
    identifier: Identifier, samples: tuple[Sample, ...], prompts: Prompts, folder: Path
) -> tuple[Sample, ...]:
    """Return the samples with their unwanted spans, read from a span file if there is one.

    Safe when several processes call at once: one makes the file, the others read it. The
    identifier's models are folders or hub names, no stages. `folder` holds the span files.

    Raises:
        ConfigError: If the identifier cannot do its work (no server, no money left): one line.
    """
    if not get_kind(identifier.kind).is_costly:
        return identifiers.identify(identifier, samples, prompts)
    from tif.utils.terminal import console, literal

    path = span_path(identifier, samples, prompts, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(f"{path}.lock", str(path)):
        stored = _read_stored(path, samples)
        if stored:
            note = literal("(made before)", "dim")
            console.print(f"unwanted words: {path}", note, soft_wrap=True)
            return stored
        console.print(f"unwanted words: {identifier.kind}, to {path}", soft_wrap=True)
        try:
            identified = identifiers.identify(identifier, samples, prompts)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        settings = identifiers.describe_settings(identifier, prompts)
        span_file.write_spans(path, identified, settings)
        return span_file.attach_spans(path, samples)


def _read_stored(path: Path, samples: tuple[Sample, ...]) -> tuple[Sample, ...] | None:
    """Return the samples with the spans of a file; None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        read_bytes(path)  # no folder, no device
        return span_file.attach_spans(path, samples)
    except (OSError, ValueError) as error:
        from tif.utils.terminal import console

        line = f"{one_line(error)}: the unwanted words are found again"
        console.print(line, soft_wrap=True)
        return None


def span_path(
    identifier: Identifier, samples: tuple[Sample, ...], prompts: Prompts, folder: Path
) -> Path:
    """Return <folder>/<kind>-<hash of all that decides about the spans>.jsonl."""
    paths = list_model_paths(identifier).values()
    deciding = [
        VERSION,
        span_file.VERSION,
        identifiers.describe_settings(identifier, prompts),
        fingerprint(samples),
        [list_model_files(path) for path in paths],
    ]
    return folder / f"{identifier.kind}-{hash_json(deciding)}.jsonl"
