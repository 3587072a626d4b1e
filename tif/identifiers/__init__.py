"""Identifiers: samples in, the same samples with `unwanted` spans out.

Called by `tif identify` and by runs (`tif/training`). An identifier is one file, in which it
registers itself with its keys: see `tif.identifiers.registration`.
"""

from collections.abc import Sequence
from typing import Any

from tif.config.errors import collect_problems
from tif.config.identifier import Identifier
from tif.data.samples import Sample
from tif.data.templates import Prompts, as_keys
from tif.identifiers.registration import get_kind, list_model_paths
from tif.identifiers.string_search import grow_spans


def identify(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts = "{prompt}"
) -> tuple[Sample, ...]:
    """Return the samples with the spans that the configured identifier gives them.

    With `identifier.grow`, what names an entity in one of them is unwanted in all. A causal LM
    reads prompts in the format of `prompts` (`data.template`, `data.chat`).

    Raises:
        ValueError: One line that starts with the config key.
    """
    identified = get_kind(section.kind).run(section, samples, prompts)
    return grow_spans(identified) if section.grow else identified


def check_models(
    section: Identifier, prompts: Prompts = "", leave_out: Sequence[str] = ()
) -> None:
    """Raise ValueError, before weights load, unless the identifier's models can be used.

    Models to `leave_out` are still to be made (stages). `prompts`: data.template and data.chat. One
    line a problem.
    """
    problems: list[str] = []
    paths = list_model_paths(section)
    for key in get_kind(section.kind).models:
        name = f"identifier.{section.kind}.{key.name}"
        if paths.get(name, "") and paths[name] not in leave_out:
            from tif.identifiers.language_models import check_language_model
            from tif.models.pretrained import Source

            with collect_problems(problems):
                shown = prompts if key.shows_prompt else ""
                check_language_model(Source(paths[name], name), key.kind, shown)
    if problems:
        raise ValueError("\n".join(problems))


def describe_settings(section: Identifier, prompts: Prompts) -> dict[str, Any]:
    """Return all that decides about the spans, as JSON values.

    It is the header of a span file, and part of the name under which the file is cached.
    """
    kind = get_kind(section.kind)
    settings = {"kind": kind.name, **kind.describe(section)}
    if kind.models:
        settings["dtype"] = section.dtype
    shows_prompt = any(key.shows_prompt for key in kind.models)
    if shows_prompt and settings["context"] == "prompt":
        settings |= as_keys(prompts).describe()
    return settings | ({"grow": True} if section.grow else {})
