"""The Hugging Face hub: whether it answers, and what of it is here already.

Called by what reads models, data and logs by hub names. Without a network, or with HF_HUB_OFFLINE,
only the cache serves; what is missing there is said at once, with the command that fetches it.
"""

import functools
import os
import re
from pathlib import Path
from typing import Any

SECONDS = 2  # for an answer
NOT_HERE = "is no folder here and not in"  # of what is to be downloaded
# Hub name of a data set -> the word of tif.download that fetches it.
DATA_SETS = {
    "locuslab/TOFU": "tofu", "muse-bench/MUSE-News": "muse news", "muse-bench/MUSE-Books":
    "muse books", "open-unlearning/eval": "retain-logs",
}  # fmt: skip


@functools.cache
def is_hub_reachable() -> bool:
    """Return whether the hub answers; its own client tries for half a minute before it says no."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # of whichever HTTP library the hub's client uses
        return False
    return True


def can_be_hub_path(path: str) -> bool:
    """Return whether a path is nothing here and has the form of a hub name, or of a file below."""
    is_local = path.startswith((".", "/", "~")) or os.path.exists(path)
    return bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][^/]*)+", path)) and not is_local


def find_model(name: str) -> Path:
    """Return the folder of a model that was downloaded before.

    Raises:
        FileNotFoundError: If it was not; one line, with the command that does it.
    """
    folder = _find_in_cache(name, "model")
    if folder is None:
        raise FileNotFoundError(describe_absence(name, f"model {name}"))
    return folder


def has_data_set(name: str) -> bool:
    """Return whether a data set was downloaded before."""
    return _find_in_cache(name, "dataset") is not None


def find_data_set(name: str, file: str | None = None) -> Path:
    """Return the folder of a data set, or a file of it: downloaded before, or else now.

    Raises:
        FileNotFoundError: If it is not here and the hub does not answer; one line.
        OSError: Of the hub's client.
    """
    from huggingface_hub.errors import EntryNotFoundError

    path = _find_in_cache(name, "dataset", file)
    if path is not None:
        return path
    if not is_hub_reachable():
        absent = f"{name}/{file}" if file else name
        raise FileNotFoundError(describe_absence(absent, DATA_SETS.get(name)))
    try:
        return _load(name, "dataset", file)
    except EntryNotFoundError:
        raise FileNotFoundError(f"{name} has no {file}") from None


def find_data_file(path: str) -> Path:
    """Return the file of a path that begins with the name of a data set, as org/set/folder/file.

    A path that is here, or that cannot be one of the hub, is returned as it is. Errors are those of
    `find_data_set`.
    """
    name, file = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
    if name not in DATA_SETS or not file or os.path.exists(path):
        return Path(path)
    return find_data_set(name, file)


def _find_in_cache(name: str, kind: str, file: str | None = None) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _load(name, kind, file, is_cached=True)
    except LocalEntryNotFoundError:
        return None


def _load(name: str, kind: str, file: str | None, is_cached: bool = False) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    options: Any = {"repo_type": kind, "local_files_only": is_cached}
    path = hf_hub_download(name, file, **options) if file else snapshot_download(name, **options)
    return Path(path)


def describe_unasked(key: str, name: str, download: str | None) -> str:
    """Return a line: what is not in the cache, and how a command asks for it."""
    step = f", or tif download {download}" if download else ""
    return (f"{key}: {name} is not in the hub's cache, and a run that is looked at asks no server; "
            f"want {key}={name} on the command line{step}")


def describe_absence(name: str, download: str | None) -> str:
    """Return a line: what is not here, why it is not fetched now, and the command that does it."""
    from huggingface_hub import constants

    why = f"{constants.ENDPOINT} does not answer"
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    step = f"; where there is a network: tif download {download}" if download else ""
    return f"{name} {NOT_HERE} {constants.HF_HUB_CACHE}, and {why}{step}"


def is_download_missing(error: Exception) -> bool:
    """Return whether an error says no more than that files of the hub are not here yet."""
    return all(NOT_HERE in line for line in str(error).splitlines())
