"""What an identifier is, and how it registers itself. Called by every identifier.

    @identifier("masked_lm", title="a masked LM does not predict it", keys=MaskedLM)
    def identify_by_masked_lm(section: Identifier, samples, prompts) -> tuple[Sample, ...]: ...

All files of this room are imported where a configuration is read. So that this takes no time, they
import inside functions what loads transformers, openai, datasets or rich.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

from tif.config import registry
from tif.config.identifier import Identifier
from tif.config.keys import NoKeys
from tif.config.model import Model
from tif.config.registry import Entry
from tif.data.samples import Sample
from tif.data.templates import Prompts

IdentifyFunction = Callable[[Identifier, Sequence[Sample], Prompts], tuple[Sample, ...]]
CONTEXTS = ("prompt", "answer")
ABOUT_CONTEXT = "what is shown with the answer: prompt (the question too) or answer (nothing else)"


@dataclasses.dataclass(frozen=True)
class ModelKey:
    """A key that names a language model: a Hugging Face folder, hub name or stage.

    Attributes:
        name: of the key, in the identifier's section.
        kind: "causal LM" or "masked LM".
        wanted: which model it is, for the error where there is none; "" = it may be null.
        stand_in: the key of section `model` that is read where this one is null.
        shows_prompt: whether the model is shown questions in `data.template`.
    """

    name: str
    kind: str
    wanted: str = ""
    stand_in: str = ""
    shows_prompt: bool = False


@dataclasses.dataclass(frozen=True)
class Kind(Entry):
    """A registered identifier.

    Attributes:
        run: from section `identifier`, samples and the prompt format to samples with spans.
        title: completes "a word is unwanted where ...".
        models: the keys that name models.
        asks_server: whether it sends the samples to a server.
        is_control: whether its share of unwanted words is on purpose.
        check: returns what is wrong with its keys, one line each.
        describe: returns the keys that decide about the spans, as JSON values.
    """

    run: IdentifyFunction
    title: str
    models: tuple[ModelKey, ...] = ()
    asks_server: bool = False
    is_control: bool = False
    check: Callable[[Identifier], list[str]] = lambda section: []
    describe: Callable[[Identifier], dict[str, Any]] = lambda section: dataclasses.asdict(
        section.chosen_keys()
    )

    @property
    def is_costly(self) -> bool:
        """Whether its spans are made once and then read from a file."""
        return bool(self.models) or self.asks_server

    def find_problems(self, section: Identifier, model: Model) -> list[str]:
        """Return what is wrong with its keys, one line each; `model`: section `model`."""
        problems = self.check(section)
        for key in self.models:
            path = getattr(section.chosen_keys(), key.name)
            if path or not key.wanted or (key.stand_in and getattr(model, key.stand_in)):
                continue
            too = f", and model.{key.stand_in} is null too" if key.stand_in else ""
            problems.append(
                f"identifier.{self.name}.{key.name}: want {key.wanted} (a Hugging Face folder, hub "
                f"name or stage), got null{too}"
            )
        return problems


def identifier(
    name: str, title: str, keys: type = NoKeys, **properties: Any
) -> Callable[[IdentifyFunction], IdentifyFunction]:
    """Register a function of (section, samples, prompts) as an identifier.

    Args:
        name: the value of `identifier.kind`, and the section of its keys.
        title: completes "a word is unwanted where ...".
        keys: dataclass of these keys; `section.keys_of(keys)` has their values.
        properties: the other fields of `Kind`.
    """

    def decorate(run: IdentifyFunction) -> IdentifyFunction:
        documented = run.__doc__ or ""
        module = run.__module__
        registry.register(
            "identifier", Kind(name, keys, documented, module, run, title, **properties)
        )
        return run

    return decorate


def get_kind(name: str) -> Kind:
    """Return the identifier of this name."""
    return cast(Kind, registry.entries("identifier")[name])


def list_model_paths(section: Identifier) -> dict[str, str]:
    """Return the config keys of the models that the identifier would load, with their values."""
    kind = get_kind(section.kind)
    values = kind.describe(section) if kind.models else {}
    names = [key.name for key in kind.models if values[key.name]]
    return {f"identifier.{kind.name}.{name}": values[name] for name in names}
