"""Errors of a user's input: their words, and how checks collect them.

Used by every check before a run.
"""

import contextlib
import difflib
import errno
from collections.abc import Iterator, Sequence
from typing import Any

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


def brief(value: Any) -> str:
    """Return a value for an error's line: about 80 characters at most, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return shorten(text, 80)


def nearest(name: Any, known: Sequence[str]) -> str:
    """Return "; did you mean X?" with the nearest known names, if any.

    Those that the name begins (bf16: bf16-mixed, bf16-true), else the nearest name or last part of
    a name.
    """
    begun = [key for key in known if key.startswith(f"{name}-")]
    if begun:
        return f"; did you mean {' or '.join(begun)}?"
    by_last_part = {key.rsplit(".", 1)[-1]: key for key in known}
    last_part = str(name).rsplit(".", 1)[-1]
    close = difflib.get_close_matches(str(name), known, 1, 0.6)
    if not close:
        parts = difflib.get_close_matches(last_part, list(by_last_part), 1, 0.75)
        close = [by_last_part[part] for part in parts]
    return f"; did you mean {close[0]}?" if close else ""


def raise_problems(problems: Sequence[str]) -> None:
    """Raise ConfigError with all problems, one a line, where there are any."""
    if problems:
        raise ConfigError("\n".join(map(shorten, problems)))


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
