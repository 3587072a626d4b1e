"""Read a checkpoint in shards (FSDP2) without running code that stands in it.

torch.distributed.checkpoint reads `.metadata` and all values that are no tensors with pickle, which
runs whatever code a file names, and falls back to further pickles where `.metadata` cannot be read.
So `.metadata` is read here, by an unpickler that makes inert objects, and torch gets a copy whose
fields have the types it expects. Values are read as weights are. Called by run_folders and checks.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from tif.config.errors import one_line
from tif.training.checkpoints import SIZES
from tif.utils.files import read_bytes

METADATA, OTHER_VALUES = ".metadata", "meta.pt"
SHARD = re.compile(r"__\d+_\d+\.distcp")
_PLACE = "torch.distributed.checkpoint"
CLASSES = {
    f"{_PLACE}.metadata": {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    f"{_PLACE}.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},  # Python 3.13
}  # fmt: skip
BUILTINS = {("torch", "Size"): tuple, ("collections", "OrderedDict"): dict}


class Inert:
    """Stand in for a class that a pickle names: hold what the pickle says, and do nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.args = (state,)
        if isinstance(state, dict):
            self.__dict__.update(state)


class MetadataUnpickler(pickle.Unpickler):
    """Read `.metadata` as inert objects; a class that no such file needs raises UnpicklingError."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a new stand-in for a class of `CLASSES`, or a dtype of torch."""
        if name in CLASSES.get(module, ()):
            return type(name, (Inert,), {})  # new, since a pickle can change it
        if (module, name) in BUILTINS:
            return BUILTINS[module, name]
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"it names {module}.{name}")


class ShardReader(dcp.FileSystemReader):
    """Read shards by checked metadata. A reader without keywords has no fallback in torch."""

    def read_metadata(self) -> Metadata:
        """Return the metadata, as `read_metadata` below."""
        metadata = read_metadata(Path(self.path))
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class ShardPlanner(dcp.DefaultLoadPlanner):
    """Put what was read into its place; values that are no tensors are read as weights are."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        """Take over a value; UnpicklingError where it is more than numbers, texts or tensors."""
        content = io.BytesIO()
        torch.save(torch.load(value, map_location="cpu", weights_only=True), content)
        content.seek(0)
        super().load_bytes(read_item, content)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2; Lightning's own reading of a checkpoint takes no reader."""

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load model and optimizers from shards; return the rest of the checkpoint."""
        path, model = Path(self.broadcast(checkpoint_path)), self.model
        assert model is not None
        state: dict[str, Any] = {"state_dict": get_model_state_dict(model)}
        read_shards(state, path)
        model.load_state_dict(state["state_dict"])
        options = StateDictOptions(cpu_offload=True)
        for number, optimizer in enumerate(self.optimizers):
            key = f"optimizer_{number}"
            state = {key: get_optimizer_state_dict(model, optimizer)}
            read_shards(state, path)
            set_optimizer_state_dict(
                model, optimizer, optim_state_dict=state[key], options=options
            )
        rest: dict[str, Any] = torch.load(path / OTHER_VALUES, weights_only=True)
        return rest


def read_shards(state: dict[str, Any], folder: Path) -> None:
    """Read the values of a state dict, in its place, from a checkpoint; all processes call.

    Raises:
        CheckpointException: If the checkpoint is damaged, or holds more than weights and values.
    """
    dcp.load(state, storage_reader=ShardReader(folder), planner=ShardPlanner())


def find_danger(folder: Path) -> str | None:
    """Return what in a checkpoint of shards could run code when it is read, or None."""
    for path in sorted(folder.iterdir()):
        if path.name not in (METADATA, OTHER_VALUES, SIZES) and not SHARD.fullmatch(path.name):
            return f"it holds {path.name}, which no checkpoint of tif has"
    try:
        metadata = read_metadata(folder)
        for name, kind in metadata.state_dict_metadata.items():
            if isinstance(kind, BytesStorageMetadata):
                _read_value(folder, metadata.storage_data[MetadataIndex(name)])
    except Exception as error:  # a damaged pickle raises anything
        return f"{METADATA}: {one_line(error, 200)}"
    return None


def read_metadata(folder: Path) -> Metadata:
    """Return the content of `.metadata`, made anew from plain values.

    Raises:
        ValueError, pickle.UnpicklingError: If it names another class or a field is of another type.
            A damaged pickle may raise any exception.
    """
    content = MetadataUnpickler(io.BytesIO(read_bytes(folder / METADATA))).load()
    _check_kind(content, "Metadata", METADATA)
    if getattr(content, "storage_meta", None) is not None:
        _check_kind(content.storage_meta, "StorageMeta", "storage_meta")
    kinds: dict[str, Any] = {}
    for name, kind in _check(content.state_dict_metadata, dict, "state_dict_metadata").items():
        kinds[_check(name, str, "a name")] = _copy_kind(kind, name)
    places = {}
    for index, place in _check(content.storage_data, dict, "storage_data").items():
        _check_kind(index, "MetadataIndex", "an index")
        offset = getattr(index, "offset", None)
        name = _check(index.fqn, str, "an index")
        sizes = None if offset is None else _copy_sizes(offset, name)
        places[MetadataIndex(name, sizes, getattr(index, "index", None))] = _copy_place(place)
    return Metadata(kinds, storage_data=places)


def _copy_kind(kind: Any, name: str) -> BytesStorageMetadata | TensorStorageMetadata:
    """Return what is stored under a name: a value, or a tensor with its chunks."""
    if type(kind).__name__ == "BytesStorageMetadata":
        return BytesStorageMetadata()
    _check_kind(kind, "TensorStorageMetadata", name)
    _check_kind(kind.properties, "TensorProperties", name)
    dtype = _check(_check(kind.properties.args[0], tuple, name)[0], torch.dtype, name)
    chunks = []
    for chunk in _check(kind.chunks, list, name):
        _check_kind(chunk, "ChunkStorageMetadata", name)
        offsets, sizes = _copy_sizes(chunk.offsets, name), _copy_sizes(chunk.sizes, name)
        chunks.append(ChunkStorageMetadata(offsets, sizes))
    size = _copy_sizes(kind.size, name)
    return TensorStorageMetadata(TensorProperties(dtype), size, chunks)


def _copy_place(place: Any) -> _StorageInfo:
    """Return where something is stored: a file of the checkpoint, and bytes in it."""
    _check_kind(place, "_StorageInfo", "a place")
    name = _check(place.relative_path, str, "a place")
    if getattr(place, "transform_descriptors", None) or not SHARD.fullmatch(name):
        raise ValueError(f"it places values in {name}")
    return _StorageInfo(name, *_copy_sizes((place.offset, place.length), name))


def _copy_sizes(values: Any, name: str) -> torch.Size:
    """Return numbers of elements or bytes, each checked to be none below 0."""
    for value in _check(values, tuple, name):
        if _check(value, int, name) < 0:
            raise ValueError(f"{name}: want no size below 0, got {value}")
    return torch.Size(values)


def _check(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: want a {kind.__name__}, got a {type(value).__name__}")
    return value


def _check_kind(value: Any, kind: str, name: str) -> None:
    """Raise ValueError unless a value stands in for the class of this name."""
    if not isinstance(value, Inert) or type(value).__name__ != kind:
        raise ValueError(f"{name}: want a {kind}, got a {type(value).__name__}")


def _read_value(folder: Path, place: _StorageInfo) -> None:
    """Read a value that is no tensor as torch reads weights: plain values and tensors only."""
    path = folder / place.relative_path
    if not path.is_file():
        raise ValueError(f"it places values in {place.relative_path}")
    with path.open("rb") as file:
        file.seek(place.offset)
        content = io.BytesIO(file.read(place.length))
    try:
        torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"a value in {place.relative_path} is no number, text or tensor") from None
