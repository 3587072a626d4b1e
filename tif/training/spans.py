"""Spans that cost time: made when a run needs them, kept in a file beside the runs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.markup import escape

import tif
from tif import identifiers
from tif.config.errors import ConfigError
from tif.config.schema import Config, Identifier
from tif.data.samples import Sample, fingerprint
from tif.identifiers import span_file as store
from tif.utils.files import locked
from tif.utils.hashing import hash_json, list_model_files
from tif.utils.terminal import console


def wanted(cfg: Config) -> bool:
    """Whether a run of `cfg` tells unwanted from general words."""
    return cfg.data.train == "forget" and (cfg.loss.on == "uw" or cfg.loss.preserve != "none")


def own_identifier(cfg: Config) -> Identifier:
    """Section `identifier`; `contrastive` compares model.path with model.base where its keys say nothing."""
    own = cfg.identifier.contrastive
    full = dataclasses.replace(own, model=own.model or cfg.model.path, base=own.base or cfg.model.base)
    return dataclasses.replace(cfg.identifier, contrastive=full)


def stages(cfg: Config) -> tuple[str, ...]:
    """Stages whose models the identifier asks."""
    return tuple(path for path in identifiers.model_paths(own_identifier(cfg)).values() if path in cfg.stages)


def with_models(cfg: Config, made: Mapping[str, Path]) -> Identifier:
    """Section `identifier` with the stages' names replaced by their models' folders."""
    own = own_identifier(cfg)
    kind = getattr(own, own.kind, None)
    if own.kind not in identifiers.MODELS or kind is None:
        return own
    names = [name for name in identifiers.MODELS[own.kind] if getattr(kind, name) in made]
    return dataclasses.replace(
        own, **{own.kind: dataclasses.replace(kind, **{n: str(made[getattr(kind, n)] / "model") for n in names})}
    )


def identified(cfg: Config, samples: tuple[Sample, ...], made: Mapping[str, Path]) -> tuple[Sample, ...]:
    """The samples with their unwanted spans, from the span file in <run.folder>/spans if it is there.

    Safe when several processes ask at once: one makes the file, the others read it.

    Args:
        cfg: a run's configuration.
        samples: its forget samples.
        made: folders of its stages.

    Raises:
        ConfigError: If the identifier cannot do its work (a server that is not there, no money left): one line.
    """
    own = with_models(cfg, made)
    if own.kind not in identifiers.COSTLY:
        return identifiers.identify(own, samples, cfg.data.template)
    path = cached_path(cfg, own, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(f"{path}.lock", str(path)):
        if not path.exists():
            console.print(f"unwanted words: {escape(own.kind)}, to {escape(str(path))}", soft_wrap=True)
            try:
                found = identifiers.identify(own, samples, cfg.data.template)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            store.write(path, found, identifiers.settings(own, cfg.data.template))
        else:
            console.print(f"unwanted words: {escape(str(path))} [dim](made before)[/]", soft_wrap=True)
        return store.read(path, samples)


def cached_path(cfg: Config, own: Identifier, samples: tuple[Sample, ...]) -> Path:
    """<run.folder>/spans/<kind>-<hash of all that decides about the spans>.jsonl."""
    models = [list_model_files(path) for path in identifiers.model_paths(own).values()]
    what = [tif.__version__, store.VERSION, identifiers.settings(own, cfg.data.template), fingerprint(samples), models]
    return Path(cfg.run.folder) / "spans" / f"{own.kind}-{hash_json(what)}.jsonl"
