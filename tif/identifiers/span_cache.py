"""Span files beside the runs: the spans of costly identifiers are made once, then read.

Called by `training/inputs` before a run that reads unwanted words, and by `tif identify`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tif import identifiers
from tif._version import VERSION
from tif.config.errors import ConfigError, one_line
from tif.config.schema import Identifier, Model
from tif.data.samples import Sample, fingerprint
from tif.data.templates import Prompts
from tif.identifiers import span_file
from tif.identifiers.registration import ModelKey, get_kind, list_model_paths
from tif.utils.files import locked, read_bytes
from tif.utils.hashing import hash_json, list_model_files

RUN_SPANS = "spans.jsonl"  # in a run folder


def complete_identifier(identifier: Identifier, model: Model) -> Identifier:
    """Return section `identifier` with the models that it takes from section `model`."""

    def choose(key: ModelKey, path: str | None) -> str | None:
        return getattr(model, key.stand_in) if key.stand_in and not path else path

    return _replace_models(identifier, choose)


def with_stage_models(identifier: Identifier, stages: Mapping[str, Path]) -> Identifier:
    """Return a complete identifier with names of `stages` replaced by their models' folders."""

    def choose(key: ModelKey, path: str | None) -> str | None:
        return str(stages[path] / "model") if path and path in stages else path

    return _replace_models(identifier, choose)


def _replace_models(
    identifier: Identifier, choose: Callable[[ModelKey, str | None], str | None]
) -> Identifier:
    """Return section `identifier` with another path for each model of the chosen identifier."""
    keys, kind = identifier.chosen_keys(), get_kind(identifier.kind)
    paths = {key.name: choose(key, getattr(keys, key.name)) for key in kind.models}
    if not paths:
        return identifier
    return dataclasses.replace(identifier, **{kind.name: dataclasses.replace(keys, **paths)})


def list_stages(identifier: Identifier, stages: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the stages whose models a complete identifier asks, each once."""
    paths = list_model_paths(identifier).values()
    return tuple(dict.fromkeys(path for path in paths if path in stages))


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
        try:
            if path.exists():
                read_bytes(path)  # no folder, no device
                stored = span_file.attach_spans(path, samples)
                note = literal("(made before)", "dim")
                console.print(f"unwanted words: {path}", note, soft_wrap=True)
                return stored
        except (OSError, ValueError) as error:
            line = f"{one_line(error)}: the unwanted words are found again"
            console.print(line, soft_wrap=True)
        console.print(f"unwanted words: {identifier.kind}, to {path}", soft_wrap=True)
        try:
            identified = identifiers.identify(identifier, samples, prompts)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        settings = identifiers.describe_settings(identifier, prompts)
        span_file.write_spans(path, identified, settings)
        return span_file.attach_spans(path, samples)


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
