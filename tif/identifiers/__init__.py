"""Identifiers: samples in, the same samples with `unwanted` spans out.

Called by `tif identify` and by runs (`tif/training`). One file a kind; to add a kind,
write its file, add a function to `IDENTIFIERS` and its keys to `tif/config/identifier.py`.
Modules that load models are imported only when their kind is asked for.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tif.config.errors import collect_problems
from tif.config.schema import Identifier
from tif.data.samples import Sample
from tif.data.templates import Prompts, as_keys
from tif.identifiers.controls import mark_everything, mark_nothing, mark_random_words, require_gold
from tif.identifiers.listed_words import identify_by_list, read_entries
from tif.identifiers.lookup import grow_spans
from tif.identifiers.precomputed import read_precomputed

Identified = tuple[Sample, ...]

# The keys that name language models, by kind, with the kind of model that is wanted.
MODEL_KEYS = {
    "masked_lm": {"model": "masked LM"},
    "causal_lm": {"model": "causal LM"},
    "contrastive": {"model": "causal LM", "base": "causal LM"},
}
COSTLY_KINDS = ("generative", *MODEL_KEYS)  # their spans are made once, then read from a file
# Keys of section `generative` that decide about the replies. The others say how they are got.
_REPLY_KEYS = (
    "base_url", "model", "votes", "max_tokens", "temperature", "seed", "window_characters",
)  # fmt: skip


def identify(
    identifier: Identifier, samples: Sequence[Sample], prompts: Prompts = "{prompt}"
) -> Identified:
    """Return the samples with the spans that the configured identifier gives them.

    With `identifier.grow`, what names an entity in one of them is unwanted in all. A causal LM
    reads prompts in the format of `prompts` (`data.template`, `data.chat`).

    Raises:
        ValueError: One line that starts with the config key.
    """
    identified = IDENTIFIERS[identifier.kind](identifier, samples, prompts)
    return grow_spans(identified) if identifier.grow else identified


def _generative(identifier: Identifier, samples: Sequence[Sample], prompts: Prompts) -> Identified:
    from tif.identifiers.generative.identify import identify_by_llm

    cache = Path(os.path.expanduser(identifier.generative.cache))
    return identify_by_llm(identifier.generative, samples, cache)


def _masked_lm(identifier: Identifier, samples: Sequence[Sample], prompts: Prompts) -> Identified:
    from tif.identifiers.masked_lm import identify_by_masked_lm

    return identify_by_masked_lm(identifier.masked_lm, samples, identifier)


def _causal_lm(identifier: Identifier, samples: Sequence[Sample], prompts: Prompts) -> Identified:
    from tif.identifiers.causal_lm import identify_by_causal_lm

    return identify_by_causal_lm(identifier.causal_lm, samples, identifier, prompts)


def _contrastive(identifier: Identifier, samples: Sequence[Sample], prompts: Prompts) -> Identified:
    from tif.identifiers.contrastive import identify_by_contrast

    return identify_by_contrast(identifier.contrastive, samples, identifier, prompts)


IDENTIFIERS: dict[str, Callable[[Identifier, Sequence[Sample], Prompts], Identified]] = {
    "gold": lambda identifier, samples, prompts: require_gold(samples),
    "precomputed": lambda identifier, samples, prompts: read_precomputed(
        str(identifier.path), samples, identifier.rule
    ),
    "words": lambda identifier, samples, prompts: identify_by_list(identifier, samples),
    "all": lambda identifier, samples, prompts: mark_everything(samples),
    "none": lambda identifier, samples, prompts: mark_nothing(samples),
    "random": lambda identifier, samples, prompts: mark_random_words(identifier.random, samples),
    "generative": _generative,
    "masked_lm": _masked_lm,
    "causal_lm": _causal_lm,
    "contrastive": _contrastive,
}


def list_model_paths(identifier: Identifier) -> dict[str, str]:
    """Return the config keys of the models that the identifier would load, with their values."""
    section, kind = _read_section(identifier), identifier.kind
    names = [name for name in MODEL_KEYS.get(kind, ()) if section[name]]
    return {f"identifier.{kind}.{name}": section[name] for name in names}


def check_models(
    identifier: Identifier, prompts: Prompts = "", leave_out: Sequence[str] = ()
) -> None:
    """Raise ValueError, before weights load, unless the identifier's models can be used.

    Models to `leave_out` are still to be made (stages). `prompts`: data.template and data.chat. One
    line a problem.
    """
    problems: list[str] = []
    for key, path in list_model_paths(identifier).items():
        if path not in leave_out:
            from tif.identifiers.language_models import check_language_model
            from tif.models.pretrained import Source

            with collect_problems(problems):
                kind = MODEL_KEYS[identifier.kind][key.rpartition(".")[2]]
                shows_prompt = kind == "causal LM" and key.endswith(".model")
                check_language_model(Source(path, key), kind, prompts if shows_prompt else "")
    if problems:
        raise ValueError("\n".join(problems))


def describe_settings(identifier: Identifier, prompts: Prompts) -> dict[str, Any]:
    """Return all that decides about the spans, as JSON values.

    It is the header of a span file, and part of the name under which the file is cached.
    """
    section = _read_section(identifier)
    if identifier.kind == "generative":
        from tif.identifiers.generative.prompts_and_replies import hash_prompts

        section = {name: section[name] for name in _REPLY_KEYS}
        section["prompts"] = hash_prompts()
    if identifier.kind == "precomputed":
        section |= {"path": identifier.path, "rule": identifier.rule}
    if identifier.kind in MODEL_KEYS:
        section["dtype"] = identifier.dtype
    if identifier.kind in ("causal_lm", "contrastive") and section["context"] == "prompt":
        section |= as_keys(prompts).describe()
    grown = {"grow": True} if identifier.grow else {}
    return {"kind": identifier.kind, **section, **grown}


def _read_section(identifier: Identifier) -> dict[str, Any]:
    """Return the keys of the kind's own section, presets resolved; kinds without one have none."""
    if identifier.kind == "words":
        return {"words": read_entries(identifier), "patterns": identifier.patterns}
    section: Any = getattr(identifier, identifier.kind, None)
    if identifier.kind == "masked_lm":
        from tif.identifiers.masked_lm import resolve_preset

        section = resolve_preset(identifier.masked_lm)
    return dataclasses.asdict(section) if section is not None else {}
