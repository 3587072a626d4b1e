"""The configuration: its schema, and how files and overrides become one checked `Config`.

Only the standard library and OmegaConf are imported here, so that `--help` and a wrong key answer at once.
"""

import dataclasses
import difflib
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tif.config.errors import ConfigError, one_line
from tif.config.loss import Loss
from tif.config.schema import Config


class Schema(Protocol):
    """A dataclass whose fields are made by `tif.schema.key`: `Config`, or a command's own settings."""

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""


S = TypeVar("S", bound=Schema)


def load(argv: Sequence[str]) -> Config:
    """Files (`*.yaml`) merge left to right over the defaults, then the overrides (`key=value`).

    A file that names `loss.forget` describes a whole method: of the loss in files before it nothing is left.

    Args:
        argv: e.g. ["tofu_smollm2.yaml", "loss/tpo_centred.yaml", "optimizer.lr=2e-5"]. A file that is not found from
            the working directory is looked for among tif's own configs.

    Raises:
        ConfigError: With all problems found, one a line: key, what was got, what is wanted, the nearest known name.
    """
    cfg, problems = read(Config, argv), list[str]()
    for name in cfg.stages:
        try:
            stage(cfg, name)
        except ConfigError as error:
            problems += str(error).splitlines()
    if problems:
        raise ConfigError("\n".join(problems))
    return cfg


def read(schema: type[S], argv: Sequence[str]) -> S:
    """`load` for any schema, without stages.

    Raises:
        ConfigError: As `load`.
    """
    problems: list[str] = []
    merged = OmegaConf.structured(schema)
    for word in sorted(argv, key=lambda word: not is_file(word)):  # files first, each kind in its order
        if is_file(word):
            layer = _read(find(word))
            if "loss" in merged and OmegaConf.select(layer, "loss.forget", default=None) is not None:
                merged.loss = OmegaConf.structured(Loss)  # a method of its own: nothing of another's is left in it
            _merge(merged, layer, f"{word}: ", problems)
        elif "=" in word[1:]:
            try:
                layer = OmegaConf.from_dotlist([word])
            except Exception as error:  # OmegaConf raises YAML's own errors here
                problems.append(f"{word}: not a key=value that YAML can read ({one_line(error)})")
                continue
            _merge(merged, layer, "", problems)
        else:
            problems.append(f"{word}: want a .yaml file or key=value")
    if problems:
        raise ConfigError("\n".join(problems))
    return cast(S, _typed(merged))


def is_file(word: str) -> bool:
    """Whether a command's argument names a file and is no override."""
    return word.endswith((".yaml", ".yml")) and "=" not in word


def stage(cfg: Config, name: str) -> Config:
    """The configuration of one of `cfg.stages`: the same config with the stage's own keys merged in.

    The stage's config has no stages, since it must stand alone.

    Raises:
        ConfigError: If the stage is unknown or one of its keys is wrong.
    """
    if name not in cfg.stages:
        raise ConfigError(f"stage: unknown stage {name!r}; this config can make: {_listing(cfg.stages)}")
    problems: list[str] = []
    own = cfg.stages[name]
    if not isinstance(own, dict | None):
        raise ConfigError(f"stages.{name}: want a mapping of keys, got {own!r}")
    model = dataclasses.replace(cfg.model, reference="auto")  # what the run compares with is none of the stage's
    merged = OmegaConf.structured(dataclasses.replace(cfg, model=model, stages={}, stage=None))
    _merge(merged, OmegaConf.create(own or {}), f"stages.{name}.", problems)
    if merged.stages or merged.stage:
        problems.append(f"stages.{name}.stages: a stage has no stages of its own")
    if problems:
        raise ConfigError("\n".join(problems))
    return cast(Config, _typed(merged, f"stages.{name}."))


def find(name: str) -> Path:
    """The file `name`: from the working directory, else among tif's own configs (with or without "configs/").

    Raises:
        ConfigError: If it is in neither.
    """
    own = own_configs()
    candidates = [Path(name), own / name, own / name.removeprefix("configs/")]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(str(p.relative_to(own)) for p in own.rglob("*.yaml"))
    raise ConfigError(f"{name}: no such file here or among tif's own configs{_nearest(name, known)}")


def own_configs() -> Path:
    """Folder of tif's own configs: `configs/` of the checkout, the package `tif.configs` in a wheel."""
    package = Path(__file__).parent.parent
    beside = package.parent / "configs"
    return beside if (beside / "base.yaml").is_file() else package / "configs"


def to_yaml(cfg: Config) -> str:
    """The resolved configuration as YAML; `load` of it gives the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))


def help_text(schema: Any = Config) -> str:
    """Every key with its type, default and a sentence, under its section's own."""
    lines, last = [], ""
    sections = {field.name: field.type for field in dataclasses.fields(schema)}
    for key, field, default in keys(schema):
        section = key.split(".")[0]
        if section != last and dataclasses.is_dataclass(sections[section]):
            lines.append(f"\n{section}: {sections[section].__doc__}")
        last = section
        kind = "|".join(field.metadata["choices"]) if field.metadata.get("choices") else _type_name(field.type)
        lines.append(f"  {key}={default}  ({kind})\n      {field.metadata['help']}")
    return "\n".join(lines)


def base_yaml() -> str:
    """configs/base.yaml: every key with its default and its sentence."""
    lines = ["# Every key with its default; `python -m tif.fit --help` says the same. Made by tif.config.base_yaml()."]
    section: tuple[str, ...] = ()
    for key, field, default in keys():
        *path, name = key.split(".")
        for depth, part in enumerate(path):
            if tuple(path[: depth + 1]) != section[: depth + 1]:
                lines.append(f"{'  ' * depth}{part}:")
        section = tuple(path)
        choices = f" ({' | '.join(field.metadata['choices'])})" if field.metadata.get("choices") else ""
        pad = "  " * len(path)
        lines += [f"{pad}# {field.metadata['help']}{choices}", f"{pad}{name}: {default}"]
    return "\n".join(lines) + "\n"


def keys(schema: Any = Config) -> Iterator[tuple[str, dataclasses.Field, str]]:
    """Each leaf key of the schema: dotted name, dataclass field, default as YAML writes it."""
    yield from _keys(schema(), "")


def _keys(node: Any, prefix: str) -> Iterator[tuple[str, dataclasses.Field, str]]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _keys(value, f"{prefix}{field.name}.")
        else:
            plain = isinstance(value, str) and value.replace("-", "").isidentifier()
            # JSON is YAML too, so that a line break in a text survives.
            yield f"{prefix}{field.name}", field, str(value) if plain else json.dumps(value)


def check_bounds(node: Any, prefix: str = "") -> list[str]:
    """Problems with single values: choices and bounds that the schema's fields declare."""
    problems = []
    for field in dataclasses.fields(node):
        value, key, meta = getattr(node, field.name), f"{prefix}{field.name}", field.metadata
        if dataclasses.is_dataclass(value):
            problems += check_bounds(value, f"{key}.")
        elif value is None:
            continue
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{key}: want a finite number, got {value}")
        elif meta.get("choices") and value not in meta["choices"]:
            own = meta.get("or_own", False)
            if own and re.fullmatch(r"[\w.]+:\w+", value):
                continue
            near, more = _nearest(value, meta["choices"]), " or your own module:function" if own else ""
            problems.append(f"{key}: want one of {_listing(meta['choices'])}{more}, got {value!r}{near}")
        elif meta.get("above") is not None and not value > meta["above"]:
            problems.append(f"{key}: must be > {meta['above']}, got {value}")
        elif meta.get("at_least") is not None and not value >= meta["at_least"]:
            problems.append(f"{key}: must be >= {meta['at_least']}, got {value}")
        elif meta.get("at_most") is not None and not value <= meta["at_most"]:
            problems.append(f"{key}: must be <= {meta['at_most']}, got {value}")
    return problems


def _typed(merged: DictConfig, where: str = "") -> Schema:
    try:
        cfg = cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}{error.full_key or 'config'}: {str(error).splitlines()[0]}") from None
    problems = check_bounds(cfg) + cfg.find_problems()
    if problems:
        raise ConfigError("\n".join(where + problem for problem in problems))
    return cfg


def _read(path: Path) -> DictConfig:
    try:
        layer = OmegaConf.load(path)
    except Exception as error:  # YAML's own errors, a folder, bytes that are no UTF-8
        raise ConfigError(f"{path}: not readable as YAML ({one_line(error)})") from None
    if not isinstance(layer, DictConfig):
        kind = "a list" if isinstance(layer, ListConfig) else type(layer).__name__
        raise ConfigError(f"{path}: want a mapping of keys, got {kind}")
    return OmegaConf.create(_no_true(OmegaConf.to_container(layer, resolve=False)))


def _merge(merged: DictConfig, layer: DictConfig, where: str, problems: list[str]) -> None:
    """Update `merged` key by key, so that every wrong key is reported and not only the first."""
    schema: Any = OmegaConf.get_type(merged)
    fields = {key: field for key, field, _ in keys(schema)}
    known = list(fields)
    for key, value in _leaves(OmegaConf.to_container(layer, resolve=False), schema(), ""):
        try:
            if isinstance(value, str) and key in fields and fields[key].type == list[str]:
                value = [word.strip() for word in value.split(",") if word.strip()]
            OmegaConf.update(merged, key, value, merge=True)
        except OmegaConfBaseException as error:
            field = fields.get(key)
            inside = [k for k in known if k.startswith(f"{key}.")]
            if inside:
                problems.append(f"{where}{key}: want a mapping of keys ({_listing(inside)}), got {value!r}")
            elif field is None:
                problems.append(f"{where}{key}: unknown key{_nearest(key, known)}")
            else:
                reason = str(error).splitlines()[0]
                problems.append(f"{where}{key}: want {_type_name(field.type)}, got {value!r} ({reason})")


def _leaves(value: Any, schema: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each entry, going as deep as the schema has sections."""
    if isinstance(value, dict) and (schema is _UNKNOWN or dataclasses.is_dataclass(schema)):
        for name, inner in value.items():
            yield from _leaves(inner, getattr(schema, str(name), _UNKNOWN), f"{key}.{name}" if key else str(name))
    else:
        yield key, value


_UNKNOWN = object()


def _no_true(value: Any) -> Any:
    """The same with the key `on` where YAML 1.1 read it as true."""
    if isinstance(value, dict):
        return {"on" if name is True else name: _no_true(inner) for name, inner in value.items()}
    return value


def _type_name(kind: Any) -> str:
    names = [a.__name__ for a in get_args(kind) if a is not type(None)] if get_args(kind) else [kind.__name__]
    optional = type(None) in get_args(kind)
    return "mapping" if "dict" in str(kind) else " or ".join(names + ["null"] * optional)


def _nearest(name: Any, known: Sequence[str]) -> str:
    """"; did you mean X?": the nearest known name, also where only the last part of a dotted key is right."""
    last = {k.rsplit(".", 1)[-1]: k for k in known}
    close = difflib.get_close_matches(str(name), known, 1, 0.6)
    close = close or [last[k] for k in difflib.get_close_matches(str(name).rsplit(".", 1)[-1], list(last), 1, 0.75)]
    return f"; did you mean {close[0]}?" if close else ""


def _listing(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"


def command(usage: str, argv: Sequence[str] | None) -> Config | None:
    """What all commands do first: `--help`, `--print`, or the checked configuration. None = answered already.

    Raises:
        ConfigError: As `load`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print(f"{usage}\n\nKeys, with their defaults:\n{help_text()}")
        return None
    cfg = load([w for w in words if w != "--print"])
    if "--print" in words:
        print(to_yaml(cfg), end="")
        return None
    return cfg
