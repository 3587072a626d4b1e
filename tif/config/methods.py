"""The registry of loss terms: what the configuration knows of each method, without torch.

`tif.losses.terms.term` fills it, `tif.config.loss` makes keys of section `loss` from it, help.py
shows it. Whoever reads a configuration imports `tif.losses` first.
"""

import dataclasses
import importlib
import os
import re
import sys

from tif.config.errors import ConfigError, one_line


@dataclasses.dataclass(frozen=True)
class Method:
    """A loss term as the configuration knows it.

    Attributes:
        name: the value of `loss.forget` or `loss.retain` that selects it.
        keys: dataclass of the keys of section `loss` that it reads.
        doc: docstring: in its first line what the term does, in its last paragraph the source.
        module: where it is defined.
    """

    name: str
    keys: type
    doc: str
    module: str

    def is_built_in(self) -> bool:
        """Return whether the term is one of tif's own."""
        return self.module.startswith("tif.")


FORGET: dict[str, Method] = {}
RETAIN: dict[str, Method] = {}


def register(table: dict[str, Method], method: Method) -> None:
    """Add a term to a table.

    Raises:
        ConfigError: If another module has taken its name.
    """
    known = table.setdefault(method.name, method)
    if known.module != method.module:
        raise ConfigError(
            f"loss.forget: {method.module} names a term {method.name}, as {known.module} does")
    table[method.name] = method


def is_own(name: str) -> bool:
    """Return whether a value of `loss.forget` has the form module:function."""
    return re.fullmatch(r"[\w.]+:\w+", name) is not None


def import_own(name: str) -> Method:
    """Import the term that `loss.forget=module:function` names.

    The working directory is looked into first, as `python -m` does, for the rest of the process.

    Raises:
        ConfigError: If there is no such term.
    """
    module, function = name.split(":")
    if not {os.getcwd(), ""} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        method = getattr(importlib.import_module(module), function)
    except ConfigError:
        raise
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"loss.forget: {name} is not there ({one_line(error)}); want "
                          "module:function, in the working directory or installed") from None
    except (Exception, SystemExit) as error:  # whatever the module raises
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"loss.forget: {name} cannot be imported ({reason})") from None
    if not isinstance(method, Method):
        raise ConfigError(f"loss.forget: {name} is no term; want a function under "
                          "@tif.losses.terms.term(...)")
    if method not in (FORGET.get(method.name), RETAIN.get(method.name)):
        raise ConfigError(f"loss.forget: {module} names two terms {method.name}; want a name each")
    return method
