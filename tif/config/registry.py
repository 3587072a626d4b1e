"""The registry: loss terms, identifiers, benchmarks and attacks by name, for the configuration.

Each registers itself by a decorator: `tif.losses.terms.term`, `tif.audit.attack.attack`,
`tif.identifiers.registration.identifier`, `tif.data.benchmarks.benchmark`. The first look-up of a
kind imports its room, so that whoever reads a configuration has to import nothing.
"""

import copyreg
import dataclasses
import functools
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from tif.config.errors import ConfigError, one_line

S = TypeVar("S")
# Kind -> the package whose modules register things of this kind, and what one is called.
KINDS = {
    "forget": ("tif.losses", "a term"), "retain": ("tif.losses", "a term"),
    "identifier": ("tif.identifiers", "an identifier"),
    "benchmark": ("tif.data.benchmarks", "a benchmark"),
    "attack": ("tif.audit.attacks", "an attack"),
}  # fmt: skip
TABLES: dict[str, dict[str, "Entry"]] = {kind: {} for kind in KINDS}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered thing as the configuration knows it.

    Attributes:
        name: the value of a key that selects it.
        keys: dataclass of the configuration keys that it reads.
        doc: docstring: in its first line what it does, in its last paragraph the source.
        module: where it is defined.
    """

    name: str
    keys: type
    doc: str
    module: str

    def is_built_in(self) -> bool:
        """Return whether it is one of tif's own."""
        return self.module.startswith("tif.")


def entries(kind: str) -> dict[str, Entry]:
    """Return everything of a kind by name, in the order of names."""
    _import_modules(KINDS[kind][0])
    return dict(sorted(TABLES[kind].items()))


class Names(Sequence[str]):
    """The names of everything of a kind, for the choices of a key; they are read when needed."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return len(entries(self.kind))

    def __getitem__(self, index: Any) -> Any:
        return list(entries(self.kind))[index]


def list_sections(kind: str) -> list[tuple[str, type, Any]]:
    """Return the fields of a dataclass with a section for each entry that has keys."""
    fields = []
    for name, entry in entries(kind).items():
        if dataclasses.fields(entry.keys):
            section = name.replace("-", "_")
            fields.append((section, entry.keys, dataclasses.field(default_factory=entry.keys)))
    return fields


def extend_section(base: type[S], kind: str, make_field: Callable[[], Any]) -> type[S]:
    """Return a section with one more field, and with a section for each entry that has keys."""
    known = tuple(entries(kind).values())
    return cast(type[S], _extend(cast(Any, base), kind, make_field, known))


@functools.cache
def _extend(base: Any, kind: str, make_field: Any, known: tuple[Entry, ...]) -> Any:
    fields = [make_field(), *list_sections(kind)]
    section = dataclasses.make_dataclass(base.__name__, fields, bases=(base,))
    section.__module__, section.__doc__ = base.__module__, base.__doc__
    copyreg.pickle(section, lambda value: (_make_default, (base, kind, make_field), vars(value)))
    return section


def _make_default(base: Any, kind: str, make_field: Any) -> Any:
    """Return a section with default values; pickle, to which its class is unknown, calls it."""
    return extend_section(base, kind, make_field)()


@functools.cache
def _import_modules(package: str) -> None:
    """Import all modules of a package, which registers what stands in them."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


def register(kind: str, entry: Entry) -> None:
    """Add an entry to the table of its kind.

    Raises:
        ConfigError: If another module has taken its name.
    """
    known = TABLES[kind].setdefault(entry.name, entry)
    if known.module != entry.module:
        title = f"{KINDS[kind][1]} {entry.name}"
        raise ConfigError(f"{entry.module} names {title}, as {known.module} does")
    TABLES[kind][entry.name] = entry


def is_own(name: str) -> bool:
    """Return whether a value of `loss.forget` has the form module:function."""
    return re.fullmatch(r"[\w.]+:\w+", name) is not None


def import_own(name: str) -> Entry:
    """Import the term that `loss.forget=module:function` names.

    The working directory is looked into first, as `python -m` does, for the rest of the process.

    Raises:
        ConfigError: If there is no such term.
    """
    module, function = name.split(":")
    if not {os.getcwd(), ""} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        term = getattr(importlib.import_module(module), function)
    except ConfigError as error:
        raise ConfigError(f"loss.forget: {one_line(error)}") from None
    except (Exception, SystemExit) as error:  # whatever the module raises
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"loss.forget: {name} cannot be imported ({reason}); want "
            "module:function, in the working directory or installed") from None
    if not isinstance(term, Entry):
        raise ConfigError(f"loss.forget: {name} is no term; want a function under "
                          "@tif.losses.terms.term(...)")
    if term not in (entries("forget").get(term.name), entries("retain").get(term.name)):
        raise ConfigError(f"loss.forget: {module} names two terms {term.name}; want a name each")
    return term
