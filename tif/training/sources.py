"""What a run reads from the hub and from GitHub, by its configuration alone.

It is looked for before heavy libraries load, so that a missing download is said at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tif.config.errors import ConfigError
from tif.config.schema import Config
from tif.identifiers import precomputed
from tif.utils import hub


class RunSource(NamedTuple):
    """A model, data set, file of one or folder of masks that is no folder here."""

    key: str  # the configuration key that names it
    name: str  # its value
    kind: str  # model, data, file or masks


def check_sources(cfg: Config) -> None:
    """Fetch data that a run needs and that is not here; say what cannot be fetched.

    Raises:
        ConfigError: One line for each thing that is not here while the network does not answer.
    """
    problems = []
    for source in list_sources(cfg):
        try:
            find_source(source)
        except (OSError, ValueError) as error:
            problems.append(f"{source.key}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))


def find_source(source: RunSource) -> None:
    """Fetch data; of a model, raise FileNotFoundError if it is neither here nor can be fetched."""
    if source.kind == "data":
        hub.find_data_set(source.name)
    elif source.kind == "file":
        hub.find_data_file(source.name)
    elif source.kind == "masks":
        precomputed.find_masks(Path(source.name))
    elif not hub.is_hub_reachable():
        hub.find_model(source.name)


def list_sources(cfg: Config) -> list[RunSource]:
    """Return what a run reads from elsewhere; each once."""
    sources: dict[str, RunSource] = {}
    for key, name, kind in _list_names(cfg):
        if name and hub.can_be_hub_path(name):
            sources.setdefault(name, RunSource(key, name, kind))
    return list(sources.values())


def _list_names(cfg: Config) -> Iterator[tuple[str, str | None, str]]:
    if cfg.data.reader.hub:
        yield "data.path", cfg.data.path, "data"
    identifier, is_unlearning = cfg.identifier, cfg.data.train == "forget"
    if is_unlearning and identifier.kind == "precomputed":
        yield "identifier.path", identifier.path, "masks"
    if is_unlearning and cfg.eval.enabled and cfg.eval.forget_quality:
        yield from _list_start(cfg, "eval.retain_records", cfg.eval.retain_records, "file")
        yield "eval.retain_model", cfg.eval.retain_model, "model"
    yield from _list_start(cfg, "model.path", cfg.model.path, "model")
    yield "model.tokenizer", cfg.model.tokenizer, "model"


def _list_start(
    cfg: Config, key: str, name: str | None, kind: str
) -> Iterator[tuple[str, str | None, str]]:
    """Yield what a key names: a source, or that of the stage of this name."""
    if name not in cfg.stages:
        yield key, name, kind
        return
    keys = cfg.stages[name]
    if isinstance(keys, dict) and "path" not in keys:
        path = (keys.get("model") or {}).get("path")
        yield f"stages.{name}.model.path", path, "model"
