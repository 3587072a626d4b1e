"""Files: written so that a killed run leaves the old or the new one; locks; and in one line, what a full disk says."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

from tif.utils import distributed


def write_text(path: Path | str, text: str) -> None:
    """Replace the file's content at once (UTF-8); the folder must exist.

    Raises:
        OSError: Naming the file; the old one is as it was.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            with unfinished.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """What the system refuses inside is an OSError that names a file: this one, where none is told."""
    try:
        yield
    except BaseException as error:  # torch.distributed.checkpoint's is no Exception
        found = refused(error)
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, found.filename or str(path)) from error


def refused(error: BaseException | None) -> OSError | None:
    """What the system said no with (disk full, not writable, gone), behind any library's error; None = it did not."""
    if isinstance(error, BrokenPipeError):  # nobody reads the output any more: see tif.command
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if found := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors and tokenizers, written in Rust
        return OSError(int(found[1]), os.strerror(int(found[1])))
    if failures := getattr(error, "failures", None):  # of several processes' shards
        return next(filter(None, (refused(own) for own, *_ in failures.values())), None)
    return None


@contextlib.contextmanager
def locked(path: Path | str, what: str) -> Iterator[None]:
    """Alone with what the lock file stands for; where another process is at it, says so and waits."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        from tif.utils.terminal import console  # rich takes longer than --help may

        console.print(f"{what}: another process is making it, waiting", markup=False, soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def told(error: Exception, next_step: str) -> int:
    """Say in one line on stderr what the system refused, and the next step; any other error is raised.

    Returns:
        The command's exit code, 1.
    """
    found = refused(error)
    if found is None:
        raise error
    if distributed.is_first():
        print(f"{found.filename or 'disk'}: {found.strerror}; {next_step}", file=sys.stderr)
    return 1


def sync(folder: Path) -> None:
    """Make new and changed names in a folder last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
