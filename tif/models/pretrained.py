"""Read the models, configs and tokenizers of others: the only file that calls `from_pretrained`.

No code that comes with a model runs unless the user trusts it, nobody is asked on the terminal,
nothing is unpickled, and a model that lacks weights is refused instead of getting random ones.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import ConfigError, brief, one_line
from tif.models.headers import INDEX, SINGLE_FILE, check_headers, check_surplus
from tif.utils import hub
from tif.utils.files import read_bytes
from tif.utils.hub import is_hub_reachable

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

HUB_NAME = r"([\w-][\w.-]*/)?[\w-][\w.-]*"  # model or org/model
LONGEST_HUB_NAME = 200  # characters; the hub allows 96
AUTO_CLASSES = {"causal LM": "AutoModelForCausalLM", "masked LM": "AutoModelForMaskedLM",
                "classifier": "AutoModelForSequenceClassification"}  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
MOST_LAYERS = 1000  # building more takes minutes
CODE_WORDS = ("custom code", "trust_remote_code")  # in transformers' errors


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        path: a Hugging Face folder or hub name.
        key: the configuration key that names it, for errors.
        trusted: whether code that comes with it may run; None = no key allows that.
    """

    path: str
    key: str
    trusted: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Return what each call of transformers gets; without it, transformers asks on stdin."""
        return {"trust_remote_code": bool(self.trusted)}


def find_location(source: Source, kind: str = "model") -> Path | str:
    """Return a folder, of regular files only, or a hub name.

    Without network, a hub name is the folder of its download in the hub's cache.

    Raises:
        ConfigError: If the path is neither, as the folder of a stage that was deleted, or a hub
            name that is not in the cache while the hub does not answer.
    """
    folder = Path(os.path.expanduser(source.path))
    if os.path.isdir(folder):
        for entry in folder.iterdir():
            is_regular = entry.is_file() or entry.is_dir()
            if entry.exists() and (not is_regular or entry.resolve().is_relative_to("/proc")):
                problem = f"{entry.name} in it is a pipe or a device; want regular files"
                raise ConfigError(f"{source.key}: {source.path}: {problem}")
        return folder
    can_be_hub_name = re.fullmatch(HUB_NAME, source.path) and len(source.path) < LONGEST_HUB_NAME
    if os.path.lexists(folder) or not can_be_hub_name:
        wanted = f"want a Hugging Face folder or hub name of a {kind}"
        raise ConfigError(f"{source.key}: no folder {source.path}; {wanted}")
    if is_hub_reachable():
        return source.path
    try:
        return hub.find_model(source.path)
    except FileNotFoundError as error:
        raise ConfigError(f"{source.key}: {error}") from None


def find_on_disk(source: Source) -> str:
    """Return a path as it is; of a hub name, the folder of its download: no server is asked.

    Raises:
        ConfigError: If it is a hub name that was not downloaded before.
    """
    is_hub_name = re.fullmatch(HUB_NAME, source.path) and len(source.path) < LONGEST_HUB_NAME
    if os.path.lexists(os.path.expanduser(source.path)) or not is_hub_name:
        return source.path
    try:
        return str(hub.find_model(source.path))
    except (OSError, ValueError):
        raise ConfigError(
            hub.describe_unasked(source.key, source.path, f"model {source.path}")
        ) from None


def read_config(source: Source, kind: str = "model") -> "PretrainedConfig":
    """Return the content of config.json.

    Raises:
        ConfigError: If there is none that transformers knows; one line with the key.
    """
    from transformers import AutoConfig

    location = find_location(source, kind)
    if isinstance(location, Path) and not (location / "config.json").is_file():
        wanted = "want a Hugging Face model folder (a run's model/)"
        raise ConfigError(f"{source.key}: {source.path} holds no config.json; {wanted}")
    with _errors_on_one_line(source, f"is no model that can be loaded as a {kind}"):
        config = AutoConfig.from_pretrained(location, **source.options)
        check_sizes(config.to_dict())
        layers = getattr(config.get_text_config(), "num_hidden_layers", 1)
        if layers < 1:
            raise ValueError(f"num_hidden_layers is {layers}; want at least 1")
        if getattr(config, "quantization_config", None):  # only part of it would be trained
            wanted = "want a copy in 16 or 32 bits; model.quantize makes few bits of it"
            raise ValueError(f"its weights are stored in few bits (quantization_config); {wanted}")
        for part in (config, config.get_text_config()):
            attention = str(getattr(part, "_attn_implementation", None))
            if not attention.isidentifier():  # transformers fetches such a kernel, and runs it
                raise ValueError(f"its config.json names the kernel {attention}, whose code would "
                                 "run; delete the line")
    return config


def check_sizes(keys: Mapping[str, Any]) -> None:
    """Raise ValueError where a model's config has more layers than can be built."""
    for name, value in keys.items():
        if isinstance(value, Mapping):
            check_sizes(value)
        is_large = isinstance(value, int) and value > MOST_LAYERS
        if is_large and re.search("(layer|layers|depth|block|blocks)$", str(name)):
            raise ValueError(f"{name} is {brief(value)}; want at most {MOST_LAYERS}")


def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a model.

    Raises:
        ConfigError: If there is none that can be loaded; one line with the key.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    location = find_location(source)
    with _errors_on_one_line(source, "has no tokenizer that can be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(location, **source.options)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):  # tokenizer_class can name any
            raise TypeError(f"a {type(tokenizer).__name__} came")
        tokenizer.decode(tokenizer("a b")["input_ids"])  # wrong values are noticed only in use
    return tokenizer


def check_model(source: Source, kind: str, attention: str | None = None) -> "PreTrainedModel":
    """Raise ConfigError, one line with the key, unless the model is there and can be loaded.

    Of a folder, names and shapes of all weights are compared with the headers of its files; a hub
    name's are, when they load.

    Args:
        source: the model.
        kind: of `AUTO_CLASSES`.
        attention: attn_implementation.

    Returns:
        The model on the meta device: shapes without weights.
    """
    import transformers

    config = read_config(source, kind)
    location = find_location(source, kind)
    if isinstance(location, Path):
        _check_files(source, location)
    options: dict[str, Any] = {"attn_implementation": attention}
    with _errors_on_one_line(source, f"is no model that can be loaded as a {kind}"):
        auto_class = getattr(transformers, AUTO_CLASSES[kind])
        with torch.device("meta"):
            model: PreTrainedModel = auto_class.from_config(config, **options, **source.options)
        if isinstance(location, Path):
            check_headers(model, location)
    return model


def load_model(source: Source, kind: str, **options: Any) -> "PreTrainedModel":
    """Return a model of a kind of `AUTO_CLASSES`; `options` go to `from_pretrained`.

    Raises:
        ConfigError: If it cannot be loaded or lacks weights; one line with the key.
    """
    import transformers

    read_config(source, kind)
    location = find_location(source, kind)
    if isinstance(location, Path):
        _check_files(source, location)
    # Else transformers asks a service of the hub to convert weights that are pickled.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    auto_class = getattr(transformers, AUTO_CLASSES[kind])
    with _errors_on_one_line(source, f"is no model that can be loaded as a {kind}"):
        model: PreTrainedModel
        # Kernels are code of the hub, which transformers puts into a model's modules by itself.
        model, info = auto_class.from_pretrained(
            location, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True,
            use_kernels=False, **source.options, **options,
        )  # fmt: skip
        for name, stored, wanted in sorted(info["mismatched_keys"]):
            shapes = f"{list(stored)} in its files and {list(wanted)} by its config.json"
            raise ValueError(f"the weight {name} is {shapes}")
        for name in sorted(info["missing_keys"]):
            raise ValueError(f"its files lack {len(info['missing_keys'])} weights, as {name}")
        check_surplus(set(info["unexpected_keys"]), model.state_dict().keys())
    return model


def _check_files(source: Source, folder: Path) -> None:
    """Raise ConfigError unless the folder holds all files of its weights, as safetensors."""
    names = {file.name for file in folder.iterdir() if file.is_file()}
    pickled = sorted(name for name in names if name.endswith(PICKLES))
    problem = None
    if not any(name.endswith(".safetensors") for name in names):
        problem = "holds no weights (*.safetensors); was a download or a run cut short?"
        if pickled:
            convert = "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            problem = (
                f"holds pickled weights only ({pickled[0]}), which could run code; want "
                f"*.safetensors: transformers' {convert} makes them"
            )
    elif INDEX in names and SINGLE_FILE not in names:
        with _errors_on_one_line(source, f"holds a damaged {INDEX}"):
            index = json.loads(read_bytes(folder / INDEX))
            absent = sorted(set(index["weight_map"].values()) - names)
        if absent:
            problem = f"lacks {absent[0]}, which its {INDEX} names; was a download cut short?"
    if problem:
        raise ConfigError(f"{source.key}: {source.path} {problem}")


@contextlib.contextmanager
def _errors_on_one_line(source: Source, problem: str) -> Iterator[None]:
    """Raise an error in the block as a ConfigError: each architecture and file has its own."""
    from transformers import dynamic_module_utils

    # A tokenizer_class may lead to a loader that gets no `trust_remote_code`; at 0 seconds for an
    # answer it refuses instead of asking.
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        reason = one_line(error)
        if any(words in reason for words in CODE_WORDS):
            reason = "it comes with code of its own, which is not run"
            if source.trusted is None:
                reason += "; want a model whose classes are transformers' own"
            else:
                reason += "; read it, then give model.trust_remote_code=true"
        raise ConfigError(f"{source.key}: {source.path} {problem} ({reason})") from None
