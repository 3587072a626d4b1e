"""Check a checkpoint in shards (FSDP2) before torch unpickles it.

torch.distributed.checkpoint reads `.metadata` and all values that are no tensors with pickle, which
runs whatever code a file names. So both are read here first: `.metadata` by an unpickler that knows
the classes of such files only, the values by torch's own for weights. Called by run_folders.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from tif.config.errors import one_line
from tif.utils.files import read_bytes

METADATA = ".metadata"
_PLACE = "torch.distributed.checkpoint"
CLASSES = {
    f"{_PLACE}.metadata": {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    f"{_PLACE}.filesystem": {"_StorageInfo"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},  # Python 3.13
    "collections": {"OrderedDict"},
}  # fmt: skip


class MetadataUnpickler(pickle.Unpickler):
    """Read `.metadata`; a class that no such file needs raises UnpicklingError."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of `CLASSES`, or a dtype of torch."""
        if name in CLASSES.get(module, ()):
            return super().find_class(module, name)
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def find_danger(folder: Path) -> str | None:
    """Return what in a checkpoint of shards could run code when torch reads it, or None."""
    try:
        metadata = MetadataUnpickler(io.BytesIO(read_bytes(folder / METADATA))).load()
        if not isinstance(metadata, Metadata):
            return f"{METADATA} holds a {type(metadata).__name__}"
        values = [
            MetadataIndex(name)
            for name, kind in metadata.state_dict_metadata.items()
            if isinstance(kind, BytesStorageMetadata)
        ]
        for index in values:
            _read_value(folder, metadata.storage_data[index])
    except Exception as error:  # a damaged pickle raises anything
        return f"{METADATA}: {one_line(error, 200)}"
    return None


def _read_value(folder: Path, place: Any) -> None:
    """Read a value that is no tensor as torch reads weights: plain values and tensors only."""
    path = folder / place.relative_path
    is_inside = Path(place.relative_path).name == place.relative_path and path.is_file()
    if place.transform_descriptors or not is_inside:
        raise ValueError(f"it places values in {place.relative_path}")
    with path.open("rb") as file:
        file.seek(place.offset)
        content = io.BytesIO(file.read(place.length))
    try:
        torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"a value in {place.relative_path} is no number, text or tensor") from None
