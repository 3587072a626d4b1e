"""From a command's words to a checked configuration: files and overrides over the defaults.

Every command calls `load` (or `read` for a schema of its own) first, so that a wrong key stops it
within seconds. Only the standard library and OmegaConf are imported here.
"""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tif.config.errors import ConfigError, brief, nearest, raise_problems
from tif.config.files import find as find
from tif.config.files import is_file as is_file
from tif.config.files import is_override as is_override
from tif.config.files import own_configs as own_configs
from tif.config.files import read_yaml as read_yaml
from tif.config.keys import check_values, list_keys, type_name
from tif.config.layers import Layer, flatten, list_keys_of, read_layers
from tif.config.loss import Loss, loss_class
from tif.config.presets import find_missing_start, find_unused_preset, name_run
from tif.config.registry import import_own, is_own
from tif.config.schema import Config, Data, Model, Optimizer, TrainerKeys
from tif.config.stored import select_counted

OmegaConf.register_resolver(
    "choose", lambda value, table, default=None: table.get(value, default), replace=True
)
MOST_PROBLEMS = 50  # of one file or word; looking for the nearest name takes milliseconds
INHERITED_OF_MODEL = ("path", "base", "tokenizer", "init", "attention", "gradient_checkpointing",
                      "trust_remote_code")  # fmt: skip
INHERITED_OF_TRAINER = ("accelerator", "devices", "strategy", "log_every_n_steps")
MOST_STRUCTURED = 16  # typed keys of sections that are held
LONGEST_RESULT = 10**9  # characters that references could make of a configuration
_STRUCTURED: dict[tuple[Any, ...], DictConfig] = {}


S = TypeVar("S")  # a dataclass whose fields are made by `key`, with `find_problems`


def load(argv: Sequence[str], unnamed: Sequence[str] = ()) -> Config:
    """Return the configuration of tif.fit: files, left to right, over the defaults, then overrides.

    A file that names `loss.forget` is a whole method: nothing is left of the loss before it.
    A file that is not in the working directory is looked for among tif's own configs. model=NAME
    is a file of configs/model, read after the first file. Of the words in `unnamed`, the run's
    name tells nothing.

    Raises:
        ConfigError: With all problems, one a line: key, what was got, what is wanted, nearest name.
    """
    cfg = read(Config, argv)
    cfg.run.name = name_run(cfg, argv, unnamed)
    absent, problems = find_missing_start(cfg)
    problems += find_unused_preset(cfg, argv)
    for name in absent:  # no run needs them, or there is a problem
        del cfg.stages[name]
    for name in cfg.stages:
        try:
            stage(cfg, name)
        except ConfigError as error:
            problems.append(str(error))
    raise_problems(problems)
    return cfg


def read(schema: Callable[[], S], argv: Sequence[str]) -> S:
    """Return `schema` filled from files and overrides, as `load` does, without stages.

    `schema`: the class, or what returns one with other defaults.

    Raises:
        ConfigError: As `load`.
    """
    problems: list[str] = []
    defaults: Any = schema()
    layers = read_layers(argv, [name for name, _, _ in list_keys(defaults)])
    loss = _loss_with_own_keys(layers) if hasattr(defaults, "loss") else None
    if loss:
        defaults.loss = loss()
    merged = _structured(defaults)
    for layer in layers:
        if loss and layer.names_method():
            merged.loss = _structured(loss())  # nothing of another method is left in it
        keys = layer.keys
        if layer.is_of_preset and not hasattr(defaults, "run"):  # it trains nothing
            content = keys if hasattr(defaults, "data") else keys | keys.get("data", {})
            keys = {name: content[name] for name in content if hasattr(defaults, name)}
        _merge(merged, keys, defaults, f"{layer.name}: " if layer.name else "", problems)
    raise_problems(problems)
    return cast(S, _checked(merged))


def read_stored(path: Path) -> Config:
    """Return what counts of a run's config.yaml where the run is looked at; see stored.py.

    All other keys have their defaults. Nothing is imported, and the file includes no other.

    Raises:
        ConfigError: If a value has a wrong type, or one that its key does not take.
    """
    content = cast(dict[str, Any], OmegaConf.to_container(read_yaml(path), resolve=False))
    problems: list[str] = []
    defaults, where = Config(), f"{path}: "
    merged = _structured(defaults)
    keys = select_counted(flatten(content, defaults), str(path))
    _merge(merged, keys, defaults, where, problems)
    raise_problems(problems)
    cfg = cast(Config, _as_objects(merged, where))
    raise_problems([where + problem for problem in check_values(cfg)])
    return cfg


def list_given(words: Sequence[str]) -> set[str]:
    """Return the keys that a command's words give, in files or as key=value, by dotted name."""
    return set(list_keys_of(read_layers(words)))


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
    merged = _structured(_inherited(cfg))
    own_keys = {key: value for key, value in (keys or {}).items() if key != "path"}
    _merge(merged, own_keys, Config(loss=type(cfg.loss)()), f"{where}.", problems)
    if merged.stages or merged.stage:
        problems.append(f"{where}.stages: a stage has no stages of its own")
    raise_problems(problems)
    return cast(Config, _checked(merged, f"{where}."))


def _inherited(cfg: Config) -> Config:
    """Return what a stage has of the run where its own keys say nothing; the rest is default."""
    model = Model(**{key: getattr(cfg.model, key) for key in INHERITED_OF_MODEL})
    trainer = TrainerKeys(**{key: getattr(cfg.trainer, key) for key in INHERITED_OF_TRAINER})
    data = Data()
    data = dataclasses.replace(cfg.data, batch_size=data.batch_size, batching=data.batching)
    return dataclasses.replace(
        cfg, model=model, trainer=trainer, data=data, optimizer=Optimizer(),
        loss=type(cfg.loss)(), stages={}, stage=None,
    )  # fmt: skip


def to_yaml(cfg: Any) -> str:
    """Return the resolved configuration as YAML; `load` of it gives the same configuration."""
    return OmegaConf.to_yaml(_structured(cfg))


def _structured(section: Any) -> DictConfig:
    """Return the typed keys of a section, as `OmegaConf.structured` does, which takes long.

    The keys of equal sections are made once and copied: all runs start from the same defaults,
    and the stages of a run inherit the same.
    """
    key = (repr(section), *_list_types(section))
    if key not in _STRUCTURED:
        if len(_STRUCTURED) == MOST_STRUCTURED:
            del _STRUCTURED[next(iter(_STRUCTURED))]
        _STRUCTURED[key] = OmegaConf.structured(section)
    return copy.deepcopy(_STRUCTURED[key])


def _list_types(section: Any) -> Iterator[type]:
    """Yield the classes of a section and of those in it; two may have the same name."""
    yield type(section)
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _list_types(value)


def _loss_with_own_keys(layers: Sequence[Layer]) -> type[Loss]:
    """Return section `loss` with the keys of the terms of one's own that the layers name."""
    methods = {}
    for layer in layers:
        for key, value in flatten(layer.keys).items():
            if key.endswith("loss.forget") and isinstance(value, str) and is_own(value):
                methods[value] = import_own(value)
    return loss_class(methods.values())


def _merge(
    merged: DictConfig, keys: Mapping[str, Any], defaults: Any, where: str, problems: list[str]
) -> None:
    """Update `merged` key by key, so that every wrong key is reported and not only the first."""
    fields = {key: field for key, field, _ in list_keys(defaults)}
    before = len(problems)
    for key, value in flatten(keys, defaults).items():
        if len(problems) - before == MOST_PROBLEMS:
            problems.append(f"{where}and more; the first {MOST_PROBLEMS} are shown")
            break
        field = fields.get(key)
        if field is not None and field.type == list[str]:
            if isinstance(value, str):
                value = [word.strip() for word in value.split(",") if word.strip()]
            items = value if isinstance(value, list) else []
            if any(isinstance(item, dict | list) for item in items):  # which OmegaConf would take
                problems.append(f"{where}{key}: want a list of texts, got {brief(value)}")
                continue
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


def _check_references(merged: DictConfig) -> None:
    """Raise ConfigError where references could make a configuration too long to resolve.

    n references make a text at most 3 ** (n / 3) times as long: each value holds the one before
    it three times.
    """
    text = "".join(_list_texts(OmegaConf.to_container(merged, resolve=False)))
    count = text.count("${")
    if count > 100 or len(text) * 3 ** (count / 3) > LONGEST_RESULT:
        raise ConfigError(f"references: {count:,} of the form ${{...}} in {len(text):,} characters "
            "could take hours to resolve; want fewer than 30")


def _list_texts(value: Any) -> Iterator[str]:
    """Yield the texts among the values of nested keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _list_texts(inner)


def _checked(merged: DictConfig, where: str = "") -> Any:
    """Return the merged keys as dataclasses, checked each and together."""
    _check_references(merged)
    cfg = _as_objects(merged, where)
    model = getattr(cfg, "model", None)
    if model is not None and not model.path and not model.init:
        model.path = model.base
    raise_problems([where + problem for problem in check_values(cfg) + cfg.find_problems()])
    return cfg


def _as_objects(merged: DictConfig, where: str) -> Any:
    try:
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where}{error.full_key or 'config'}: {reason}") from None
