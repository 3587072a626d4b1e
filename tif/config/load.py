"""From a command's words to a checked configuration: files and overrides over the defaults.

Every command calls `load` (or `read` for a schema of its own) first, so that a wrong key stops it
within seconds. Only the standard library and OmegaConf are imported here.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tif.config.check import brief, check_values, list_keys, nearest, type_name
from tif.config.errors import ConfigError, one_line, shorten
from tif.config.loss import Loss, loss_class
from tif.config.methods import import_own, is_own
from tif.config.schema import Config, Data, Model, Optimizer, TrainerKeys
from tif.utils.files import read_bytes

ALIASES = {"loss/graddiff.yaml": "loss/ga_gdr.yaml", "loss/kl.yaml": "loss/ga_klr.yaml"}
LONGEST_FILE = 250_000  # characters; YAML is slow to read, and OmegaConf bounds aliases
UNKNOWN = object()  # the schema below an unknown key


class Schema(Protocol):
    """A dataclass whose fields are made by `key`: `Config`, or a command's own settings."""

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each."""


S = TypeVar("S", bound=Schema)


def load(argv: Sequence[str]) -> Config:
    """Return the configuration of tif.fit: files, left to right, over the defaults, then overrides.

    A file that names `loss.forget` is a whole method: nothing is left of the loss before it.
    A file that is not in the working directory is looked for among tif's own configs.

    Raises:
        ConfigError: With all problems, one a line: key, what was got, what is wanted, nearest name.
    """
    cfg = read(Config, argv)
    problems = []
    for name in cfg.stages:
        try:
            stage(cfg, name)
        except ConfigError as error:
            problems.append(str(error))
    _raise_if(problems)
    return cfg


def read(schema: Callable[[], S], argv: Sequence[str]) -> S:
    """Return `schema` filled from files and overrides, as `load` does, without stages.

    `schema`: the class, or what returns one with other defaults.

    Raises:
        ConfigError: As `load`.
    """
    problems: list[str] = []
    defaults: Any = schema()
    layers = _read_layers(argv, [name for name, _, _ in list_keys(defaults)], problems)
    loss = _loss_with_own_keys(layers) if hasattr(defaults, "loss") else None
    if loss:
        defaults.loss = loss()
    merged = OmegaConf.structured(defaults)
    for file, keys in layers:
        if loss and file and _names_method(keys):
            merged.loss = OmegaConf.structured(loss)  # nothing of another method is left in it
        _merge(merged, keys, defaults, f"{file}: " if file else "", problems)
    _raise_if(problems)
    return cast(S, _checked(merged))


def stage(cfg: Config, name: str) -> Config:
    """Return the configuration of one of `cfg.stages`: the stage's keys over what it inherits.

    A stage inherits data, model and devices of the run. How the run trains (optimizer, epochs,
    precision, batch size, LoRA, few bits, dtype) is not inherited: a change there would train
    another stage. Its key `path` is for the caller (`Plan`).

    Raises:
        ConfigError: If the stage is unknown or one of its keys is wrong.
    """
    if name not in cfg.stages:
        known = ", ".join(cfg.stages) or "none"
        raise ConfigError(f"stage: unknown stage {name!r}; this config can make: {known}")
    keys, where = cfg.stages[name], f"stages.{name}"
    if not isinstance(keys, dict | None):
        raise ConfigError(f"{where}: want a mapping of keys, got {keys!r}")
    problems: list[str] = []
    merged = OmegaConf.structured(_inherited(cfg))
    own_keys = {key: value for key, value in (keys or {}).items() if key != "path"}
    _merge(merged, OmegaConf.create(own_keys), Config(loss=type(cfg.loss)()), f"{where}.", problems)
    if merged.stages or merged.stage:
        problems.append(f"{where}.stages: a stage has no stages of its own")
    _raise_if(problems)
    return cast(Config, _checked(merged, f"{where}."))


def _inherited(cfg: Config) -> Config:
    """Return what a stage has of the run where its own keys say nothing; the rest is default."""
    model, trainer, data = Model(), TrainerKeys(), Data()
    for key in ("path", "base", "init", "attention", "gradient_checkpointing", "trust_remote_code"):
        setattr(model, key, getattr(cfg.model, key))
    for key in ("accelerator", "devices", "strategy", "log_every_n_steps"):
        setattr(trainer, key, getattr(cfg.trainer, key))
    data = dataclasses.replace(cfg.data, batch_size=data.batch_size, batching=data.batching)
    return dataclasses.replace(
        cfg, model=model, trainer=trainer, data=data, optimizer=Optimizer(),
        loss=type(cfg.loss)(), stages={}, stage=None,
    )  # fmt: skip


def _names_method(keys: DictConfig) -> bool:
    """Return whether a file names `loss.forget`."""
    content = cast(dict, OmegaConf.to_container(keys, resolve=False))
    section = content.get("loss")
    return isinstance(section, dict) and section.get("forget") is not None


def to_yaml(cfg: Schema) -> str:
    """Return the resolved configuration as YAML; `load` of it gives the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))


def is_file(word: str) -> bool:
    """Return whether a command's argument names a file and is no override."""
    return word.endswith((".yaml", ".yml")) and "=" not in word


def find(name: str) -> Path:
    """Return the path of a file: from the working directory, else among tif's own configs.

    Raises:
        ConfigError: If it is in neither.
    """
    folder, own_name = own_configs(), name.removeprefix("configs/")
    for path in (Path(name), folder / ALIASES.get(own_name, own_name)):
        if path.is_file():
            return path
    near = nearest(name, _list_own_configs())
    raise ConfigError(f"{name}: no such file here or among tif's own configs{near}")


def own_configs() -> Path:
    """Return the folder of tif's own configs: in the checkout, or `tif.configs` in a wheel."""
    package = Path(__file__).parent.parent
    in_checkout = package.parent / "configs"
    return in_checkout if (in_checkout / "base.yaml").is_file() else package / "configs"


def _read_layers(
    argv: Sequence[str], known: Sequence[str], problems: list[str]
) -> list[tuple[str, DictConfig]]:
    """Return (file or "", keys) of all words: files first, then overrides, each in their order."""
    files, overrides = [], []
    for word in argv:
        if is_file(word):
            files.append((word, read_yaml(find(word))))
        elif word.startswith("-"):
            name = nearest(word.lstrip("-").partition("=")[0], known)
            problems.append(f"{word}: want key=value, without dashes{name}")
            break  # the next word is its value
        elif "=" not in word[1:]:
            names = nearest(f"{word}.yaml", _list_own_configs())
            problems.append(f"{word}: want a .yaml file or key=value{names}")
        else:
            try:
                overrides.append(("", OmegaConf.from_dotlist([word])))
            except Exception as error:  # OmegaConf raises YAML's own errors here
                key, _, value = word.partition("=")
                problems.append(f"{word}: not a key=value that YAML can read ({one_line(error)}); "
                    f"a text wants quotes of its own: '{key}=\"{value}\"'")
    return [*files, *overrides]


def _list_own_configs() -> list[str]:
    """Return the names of tif's own configs, aliases included."""
    folder = own_configs()
    return [*sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml")), *ALIASES]


def read_yaml(path: Path) -> DictConfig:
    """Return the keys of a file.

    Raises:
        ConfigError: If it is no mapping in YAML.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if len(text) > LONGEST_FILE:
            raise ValueError(f"has {len(text):,} characters, want at most {LONGEST_FILE:,}")
        keys = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except Exception as error:  # YAML's own errors, a folder, bytes that are no UTF-8
        raise ConfigError(f"{path}: not readable as YAML ({one_line(error)})") from None
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: want a mapping of keys, got a {type(keys).__name__}")
    return OmegaConf.create(_with_key_on(keys))


def _with_key_on(keys: dict) -> dict:
    """Return nested keys with `on` where YAML 1.1 read it as true."""
    result = {}
    for name, value in keys.items():
        value = _with_key_on(value) if isinstance(value, dict) else value
        result["on" if name is True else name] = value
    return result


def _loss_with_own_keys(layers: Sequence[tuple[str, DictConfig]]) -> type[Loss]:
    """Return section `loss` with the keys of the terms of one's own that the layers name."""
    methods = {}
    for _, keys in layers:
        for key, value in _leaves(OmegaConf.to_container(keys, resolve=False), UNKNOWN):
            if key.endswith("loss.forget") and isinstance(value, str) and is_own(value):
                methods[value] = import_own(value)
    return loss_class(methods.values())


def _merge(
    merged: DictConfig, keys: DictConfig, defaults: Any, where: str, problems: list[str]
) -> None:
    """Update `merged` key by key, so that every wrong key is reported and not only the first."""
    fields = {key: field for key, field, _ in list_keys(defaults)}
    for key, value in _leaves(OmegaConf.to_container(keys, resolve=False), defaults):
        field = fields.get(key)
        if field is not None and field.type == list[str] and isinstance(value, str):
            value = [word.strip() for word in value.split(",") if word.strip()]
        if isinstance(value, str) and value.startswith("~/"):
            value = os.path.expanduser(value)
        try:
            OmegaConf.update(merged, key, value, merge=True)
        # AttributeError for section=???, OverflowError for a float of 400 digits.
        except (OmegaConfBaseException, AttributeError, OverflowError) as error:
            inside = [known for known in fields if known.startswith(f"{key}.")]
            if inside:
                problem = f"want a mapping of keys ({', '.join(inside)}), got {brief(value)}"
            elif field is None:
                problem = f"unknown key{nearest(key, list(fields))}"
            else:
                reason = str(error).splitlines()[0]
                problem = f"want {type_name(field.type)}, got {brief(value)} ({reason})"
                if field.type is str and isinstance(value, dict):
                    problem += f"; a text with a colon wants quotes of its own: '{key}=\"...\"'"
            problems.append(f"{where}{key}: {problem}")


def _leaves(value: Any, schema: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of each entry, going as deep as the schema has sections."""
    if isinstance(value, dict) and (schema is UNKNOWN or dataclasses.is_dataclass(schema)):
        for name, inner in value.items():
            dotted = f"{key}.{name}" if key else str(name)
            yield from _leaves(inner, getattr(schema, str(name), UNKNOWN), dotted)
    else:
        yield key, value


def _checked(merged: DictConfig, where: str = "") -> Schema:
    """Return the merged keys as dataclasses, checked each and together."""
    try:
        cfg = cast(Schema, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where}{error.full_key or 'config'}: {reason}") from None
    _raise_if([where + problem for problem in check_values(cfg) + cfg.find_problems()])
    return cfg


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(shorten(problem) for problem in problems))
