"""Identifiers: samples in, the same samples with `unwanted` spans out. `store` keeps the spans in a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tif.config.schema import Identifier
from tif.data.samples import Sample

MODELS = {  # the keys that name language models, by kind; True = a masked LM
    "masked_lm": {"model": True},
    "causal_lm": {"model": False},
    "contrastive": {"model": False, "base": False},
}
COSTLY = ("generative", *MODELS)  # kinds whose spans are made once and kept in a file
# Of section `generative`: what the answers depend on. The rest is how they are got.
_ANSWERS = ("base_url", "model", "votes", "max_tokens", "temperature", "seed", "window_characters")


def identify(cfg: Identifier, samples: Sequence[Sample], template: str = "{prompt}") -> tuple[Sample, ...]:
    """The samples with the spans that the identifier `cfg` names gives them.

    Args:
        cfg: section `identifier`.
        samples: the forget samples.
        template: `data.template`, in which a causal LM reads prompts.

    Raises:
        ValueError: One line that starts with the config key.
    """
    from tif.identifiers import controls

    if cfg.kind == "generative":
        from tif.identifiers.generative.identify import generative

        return generative(cfg.generative, samples, Path(cfg.generative.cache).expanduser())
    if cfg.kind == "precomputed":
        from tif.identifiers.precomputed import precomputed

        return precomputed(str(cfg.path), samples, cfg.rule)
    if cfg.kind == "random":
        return controls.random_words(samples, cfg.random.share, cfg.random.seed)
    if cfg.kind == "masked_lm":
        from tif.identifiers.masked_lm import masked_lm

        return masked_lm(cfg, samples)
    if cfg.kind == "causal_lm":
        from tif.identifiers.causal_lm import causal_lm

        return causal_lm(cfg, samples, template)
    if cfg.kind == "contrastive":
        from tif.identifiers.contrastive import contrastive

        return contrastive(cfg, samples, template)
    plain = {"gold": controls.gold, "all": controls.everything, "none": controls.nothing}
    return plain[cfg.kind](samples)


def model_paths(cfg: Identifier) -> dict[str, str]:
    """Config keys of the models that the identifier would load, with their values."""
    own = _section(cfg)
    return {f"identifier.{cfg.kind}.{name}": own[name] for name in MODELS.get(cfg.kind, {}) if own[name]}


def check(cfg: Identifier, leave_out: Sequence[str] = ()) -> None:
    """Stop before weights load where a model that the identifier needs is none.

    Args:
        cfg: section `identifier`.
        leave_out: models that are still to be made (stages).

    Raises:
        ValueError: One line a problem.
    """
    problems = []
    for key, path in model_paths(cfg).items():
        if path not in leave_out:
            from tif.identifiers import language_models as readers

            try:
                readers.check(key, path, masked=MODELS[cfg.kind][key.rsplit(".", 1)[1]])
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def settings(cfg: Identifier, template: str) -> dict[str, Any]:
    """All that decides about the spans, as JSON values: the header of a span file, and what it is cached under."""
    found: dict[str, Any] = {"kind": cfg.kind, **_section(cfg)}
    if cfg.kind == "generative":
        from tif.identifiers.generative.requests import prompts_hash

        found = {"kind": cfg.kind, **{n: found[n] for n in _ANSWERS}, "prompts": prompts_hash()}
    if cfg.kind == "precomputed":
        found |= {"path": cfg.path, "rule": cfg.rule}
    if cfg.kind in MODELS:
        found["dtype"] = cfg.dtype
    if cfg.kind in ("causal_lm", "contrastive") and found["context"] == "prompt":
        found["template"] = template
    return found


def _section(cfg: Identifier) -> dict[str, Any]:
    """The keys of the kind's own section, presets resolved."""
    section = getattr(cfg, cfg.kind, None)
    if cfg.kind == "masked_lm":
        from tif.identifiers.masked_lm import resolved

        section = resolved(cfg.masked_lm)
    return dataclasses.asdict(section) if dataclasses.is_dataclass(section) else {}  # type: ignore[arg-type]
