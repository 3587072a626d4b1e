"""Files and folders that words and keys name: where YAML is, what is in it, what is writable.

Only the standard library and OmegaConf are imported here. Called by layers.py and load.py.
"""

import copy
import functools
import io
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tif.config.errors import ConfigError, nearest, one_line
from tif.utils.files import read_bytes

ALIASES = {"loss/graddiff.yaml": "loss/ga_gdr.yaml", "loss/kl.yaml": "loss/ga_klr.yaml"}
LONGEST_FILE = 250_000  # characters; YAML is slow to read, and OmegaConf bounds aliases


def is_override(word: str) -> bool:
    """Return whether a command's argument is key=value; a path may hold "=", as a sweep's do."""
    key, sign, _ = word.partition("=")
    return bool(sign) and "/" not in key


def is_file(word: str) -> bool:
    """Return whether a command's argument names a file and is no override."""
    return word.endswith((".yaml", ".yml")) and not is_override(word)


def find(name: str) -> Path:
    """Return the path of a file: from the working directory, else among tif's own configs.

    Raises:
        ConfigError: If it is in neither.
    """
    folder, own_name = own_configs(), name.removeprefix("configs/")
    for path in (Path(name), folder / ALIASES.get(own_name, own_name)):
        if path.is_file():
            return path
    near = nearest(name, list_own_configs())
    raise ConfigError(f"{name}: no such file here or among tif's own configs{near}")


def own_configs() -> Path:
    """Return the folder of tif's own configs: in the checkout, or `tif.configs` in a wheel."""
    package = Path(__file__).parent.parent
    in_checkout = package.parent / "configs"
    return in_checkout if (in_checkout / "base.yaml").is_file() else package / "configs"


def list_own_configs() -> list[str]:
    """Return the names of tif's own configs, aliases included."""
    folder = own_configs()
    return [*sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml")), *ALIASES]


def list_model_presets() -> list[str]:
    """Return the names that `model=` takes."""
    names = sorted(path.stem for path in (own_configs() / "model").glob("*.yaml"))
    return [name for name in names if not name.endswith("_shape")]  # random weights, for tif.bench


def list_model_folders(name: str) -> list[str]:
    """Return the folders of configs/model with keys for a preset: benchmarks and variants."""
    paths = (own_configs() / "model").glob(f"*/{name}.yaml")
    return sorted(path.parent.name for path in paths)


def read_yaml(path: Path) -> DictConfig:
    """Return the keys of a file; raise as `read_keys` does."""
    return OmegaConf.create(read_keys(path))


def read_keys(path: Path) -> dict[Any, Any]:
    """Return the keys of a file, its references unresolved.

    Raises:
        ConfigError: If it is no mapping in YAML.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if len(text) > LONGEST_FILE:
            raise ValueError(f"has {len(text):,} characters, want at most {LONGEST_FILE:,}")
        keys = _parse_yaml(text)
    except Exception as error:  # YAML's own errors, a folder, bytes that are no UTF-8
        raise ConfigError(f"{path}: not readable as YAML ({one_line(error)})") from None
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: want a mapping of keys, got a {type(keys).__name__}")
    return copy.deepcopy(keys)


# Each run of a sweep reads the same files, and a method's file is read for its run and its name.
@functools.lru_cache(maxsize=64)
def _parse_yaml(text: str) -> Any:
    """Return the content of a YAML file, which is shared: copy it before it is changed."""
    content = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    return _with_key_on(content) if isinstance(content, dict) else content


def _with_key_on(keys: dict) -> dict:
    """Return nested keys with `on` where YAML 1.1 read it as true."""
    result = {}
    for name, value in keys.items():
        if isinstance(value, list):
            value = [_with_key_on(item) if isinstance(item, dict) else item for item in value]
        value = _with_key_on(value) if isinstance(value, dict) else value
        result["on" if name is True else name] = value
    return result


def check_writable(key: str, folder: Path | str) -> None:
    """Check that a folder can be made and written to.

    Raises:
        ConfigError: If not; names the key.
    """
    path = Path(folder).absolute()
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise ConfigError(f"{key}: {path} is a file; want a folder")
    if not os.access(path, os.W_OK):
        raise ConfigError(f"{key}: {path} is not writable; give another folder")


def check_inside(folder: Path, run: Path) -> None:
    """Raise ConfigError where a folder of a run, or what is in it, is a link out of the run."""
    for path in (folder, *folder.rglob("*")):
        if not path.resolve().is_relative_to(run.resolve()):
            raise ConfigError(f"{path} leads out of {run}; delete it")
