"""Files that survive a killed run or a full disk: atomic writes, JSON lines, locks, OS errors.

Called wherever tif writes a file.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

SIZE_LIMIT = 10**9  # bytes of a file that is read as a whole


class DamagedFile(ValueError):
    """A file that tif wrote cannot be read: one line with its name, and what helps."""


def write_text(path: Path | str, text: str) -> None:
    """Replace the content of a file by a text (UTF-8), as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path | str, content: bytes) -> None:
    """Replace the content of a file in one step; its folder must exist.

    A process that is killed leaves the old content or the new one.

    Raises:
        OSError: With the file's name; the old content is unchanged.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:  # follows no link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:  # it names the unfinished file, which nobody knows
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """Return a JSON value from outside; a ValueError says why it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its lists or objects are nested too deeply") from None


def append_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one line of JSON per row; an OSError has the file's name."""
    with os_errors_naming(path), path.open("a", encoding="utf-8") as file:
        file.write(_json_lines(rows))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the content of a file in one step with one line of JSON per row."""
    write_text(path, _json_lines(rows))


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows before the first damaged line, and what is wrong with that line or None.

    No rows where there is no file. The last line is left out if its line end is missing: its writer
    was killed.
    """
    rows: list[dict[str, Any]] = []
    try:
        lines = read_bytes(path).split(b"\n")[:-1] if os.path.lexists(path) else []
    except (DamagedFile, FileNotFoundError) as error:  # not found: a link to nowhere
        return rows, str(error)
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            return rows, f"{path}: line {number} is damaged ({str(error) or 'nested too deeply'})"
        if not isinstance(row, dict):
            return rows, f"{path}: line {number} is damaged (want a JSON object, got {row!r:.40})"
        rows.append(row)
    return rows, None


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: If there is none.
        DamagedFile: If it is something else (a folder, a device, a pipe) or over 1 GB.
    """
    path = Path(path)
    status = path.stat()
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise DamagedFile(f"{path}: is {kind}, want a file")
    if status.st_size > SIZE_LIMIT:
        raise DamagedFile(f"{path}: has {status.st_size:,} bytes, want at most {SIZE_LIMIT:,}")
    if not status.st_size:  # reading a file of /proc, which has no size, may never end
        return b""
    with os_errors_naming(path):
        return path.read_bytes()


def remove(path: Path) -> None:
    """Delete a file, a link or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, below: bool = True) -> None:
    """Delete what killed processes left half written in a folder that no other one writes in.

    `below`: also in the folders in it.
    """
    anywhere = "**/" if below else ""
    for pattern in (f"{anywhere}.*.tmp", f"{anywhere}.*.unfinished", "model*.partial"):
        for path in list(folder.glob(pattern)):
            remove(path)


def use_default_mode(path: Path) -> None:
    """Give a file the permissions of a new file (the user's umask); safetensors' are the user's."""
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        new.touch()
        shutil.copymode(new, path)
    finally:
        new.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Write a file's content, or a folder's names, to disk, so that they survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path | str, label: str, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock for the block, and give True; the system frees that of a dead process.

    Where another process holds the lock, print that and wait; with `wait=False`, give False at
    once. `label`: what is locked, for the message.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            yield False
            return
        # Imported here because rich takes longer to import than --help may take.
        from tif.utils.terminal import console

        message = f"{label}: another process is making it, waiting"
        console.print(message, soft_wrap=True)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def os_errors_naming(path: Path | str) -> Iterator[None]:
    """Raise an error of the operating system inside the block as an OSError with a file name.

    `path` is the name where the error has none.
    """
    try:
        yield
    except BaseException as error:  # CheckpointException of torch is no Exception
        os_error = find_os_error(error)
        if os_error is None:
            raise
        file_name = os_error.filename2 or os_error.filename or str(path)
        raise OSError(os_error.errno, os_error.strerror, file_name) from error


def find_os_error(error: BaseException | None) -> OSError | None:
    """Return the error of the operating system (disk full, ...) behind an error, or None."""
    if isinstance(error, BrokenPipeError):  # the reader of the output left: see command_line
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error
    # safetensors and tokenizers are written in Rust: their errors hold the number as text.
    if rust_error := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(rust_error[1]), os.strerror(int(rust_error[1])))
    # torch.distributed.checkpoint: rank -> (error, traceback).
    failures = getattr(error, "failures", {}).values()
    return next(filter(None, (find_os_error(failure[0]) for failure in failures)), None)
