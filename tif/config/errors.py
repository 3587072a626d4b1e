"""Errors of a user's input, and how checks collect them. Used by every check before a run."""

import contextlib
import errno
from collections.abc import Iterator

# What the operating system says of paths that no file can have, or that the user may not read.
PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES)


class ConfigError(ValueError):
    """Wrong input: one line a problem. Commands print it and exit with code 2."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an error's text (or else its class) on one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def shorten(line: str, limit: int = 2000) -> str:
    """Return a line of at most about `limit` characters: a value in it may be of any length."""
    half = limit // 2
    return line if len(line) <= limit else f"{line[:half]} ... {line[-half:]}"


@contextlib.contextmanager
def collect_problems(
    problems: list[str],
    errors: tuple[type[Exception], ...] = (ValueError,),
    prefix: str = "",
    rename_key: tuple[str, str] = ("", ""),
) -> Iterator[None]:
    """Append the lines of an error raised inside to `problems`, so that further checks can run.

    Args:
        problems: the list that grows.
        errors: the classes of errors that are a user's to mend; `PATH_ERRORS` are too. Others
            pass through.
        prefix: put before each line.
        rename_key: (key in the error's text, key that the user wrote).
    """
    try:
        yield
    except errors as error:
        for line in str(error).splitlines()[:20]:
            problems.append(prefix + line.replace(*rename_key, 1))
    except OSError as error:
        if error.errno not in PATH_ERRORS:
            raise
        problems.append(f"{prefix}{error.filename}: {error.strerror}; want another path")
