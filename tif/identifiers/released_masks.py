"""The authors' masks of TOFU: found in a folder or the cache, or fetched from their repository.

Called by precomputed.py and `tif download`. released_masks.txt has the SHA-256 of each
file: another content is refused.
"""

import hashlib
import os
import urllib.request
from pathlib import Path

from tif.utils.files import write_bytes
from tif.utils.hub import SECONDS
from tif.utils.terminal import track

REPOSITORY = "xzhou98/Unlearning-TPO/TOFU/data"
COMMIT = "1d132d4fa6e2bb14186461966578fb29325ab458"
ADDRESS = f"https://raw.githubusercontent.com/xzhou98/Unlearning-TPO/{COMMIT}/TOFU/data"
LIST = Path(__file__).parent / "released_masks.txt"  # of sha256sum: checksum, folder/file
LONGEST_FILE = 2_000_000  # bytes


def cache_folder() -> Path:
    """Return the folder where downloaded masks are kept."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "tif" / REPOSITORY


def find_masks(path: Path) -> Path:
    """Return the folder of masks that a path below `REPOSITORY` names; other paths as they are.

    Raises:
        ValueError: If they are not here and cannot be fetched now; one line.
    """
    name = path.as_posix().removeprefix(f"{REPOSITORY}/")
    if path.exists() or name == path.as_posix():
        return path
    folder = cache_folder()
    if name not in {file.split("/")[0] for file in read_checksums()}:
        raise ValueError(f"{path}: the authors have no masks of that name")
    if find_unfinished(folder, name):
        from huggingface_hub import constants

        try:
            if constants.HF_HUB_OFFLINE:  # one key for all that comes from a network
                raise OSError("HF_HUB_OFFLINE is set")
            download_masks(folder, name)
        except OSError as error:
            raise ValueError(
                f"{path} is no folder here and not in {folder}: {error}; where there is a "
                "network: tif download masks"
            ) from None
    return folder / name


def read_checksums() -> dict[str, str]:
    """Return the SHA-256 of each file of the masks, by folder/file."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return {name: checksum for checksum, name in (line.split() for line in lines)}


def find_unfinished(folder: Path, name: str = "") -> list[str]:
    """Return the files of the masks (of those whose name begins so) that a folder lacks."""
    unfinished = []
    for file, checksum in read_checksums().items():
        path = folder / file
        is_there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum
        if file.startswith(name) and not is_there:
            unfinished.append(file)
    return unfinished


def download_masks(folder: Path, name: str = "", address: str = ADDRESS) -> None:
    """Fetch the masks (those whose name begins so) that a folder lacks; 1.5 MB in all.

    Raises:
        OSError: If the server does not answer, or answers with something else.
    """
    checksums = read_checksums()
    for file in track(find_unfinished(folder, name), "the authors' masks"):
        try:
            with urllib.request.urlopen(f"{address}/{file}", timeout=5 * SECONDS) as answer:
                content = answer.read(LONGEST_FILE)
        except OSError as error:  # without the address
            reason = getattr(error, "reason", error)
            raise OSError(f"{address} does not answer ({reason})") from None
        if hashlib.sha256(content).hexdigest() != checksums[file]:
            raise OSError(f"{address}/{file} is not the file that the authors published")
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
