"""The wrapper of all commands: words, help, errors, exit codes and JSON are the same in each.

The module of a command has it as COMMAND, which the console script and `python -m` call.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from tif.config.errors import ConfigError, nearest, shorten
from tif.config.help import command_help
from tif.utils import command_line, distributed
from tif.utils.files import DamagedFile

JSON_HELP = "\n    --json      print only JSON on stdout\n"
EXIT_CODES = """
Exit code: 0 done, 1 a file could not be read or written, 2 wrong input (one line a problem, before
weights load), 128 + N stopped by signal N.
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `tif`.

    Attributes:
        name: as it is typed behind `tif`.
        doc: its help text, without `--json` and the exit codes that all commands have.
        work: does the work. It gets the parsed options: `words`, an attribute for each option,
            and `argv`, all as it was typed. It returns the exit code (None is 0) or, with --json,
            what is printed as JSON; of an iterator, each item is printed as a line.
        schema: the dataclass of its configuration's keys, if it has one.
        flags: options without a value, as "--print".
        values: options with a value -> "store" (the last one counts) or "append".
        keys: names that stand as key=value among its words, and are in no schema.
        needs_words: whether it does nothing without words.
        next_step: what helps after an error of the operating system.
        parts: commands of their own, by the word behind the name.
    """

    name: str
    doc: str
    work: Callable[[argparse.Namespace], Any]
    schema: Any = None
    flags: Sequence[str] = ()
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keys: Sequence[str] = ()
    needs_words: bool = False
    next_step: str = "the same command tries again"
    parts: Mapping[str, "Command"] = dataclasses.field(default_factory=dict)

    def run(self) -> NoReturn:
        """Run the command with the words of this process, and end the process."""
        command_line.run_main(self.main)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command with these words and return its exit code."""
        words = list(sys.argv[1:] if argv is None else argv)
        if words and words[0] in self.parts:
            return self.parts[words[0]].main(words[1:])
        try:
            options = self._parse(words)
            if options.help or (self.needs_words and not words):
                command_line.print_help(self._help_text(options.words))
                return 0 if options.help else 2
            return self._work(options)
        except (ConfigError, DamagedFile) as error:
            command_line.print_error("\n".join(map(shorten, str(error).split("\n"))))
            return 2
        except Exception as error:
            return command_line.report_os_error(error, self.next_step)
        finally:
            distributed.finish()

    def _parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the options; one that is not known is left to the configuration's check."""
        parser = _Parser(f"tif {self.name}", add_help=False, allow_abbrev=False)
        parser.add_argument("words", nargs="*")
        parser.add_argument("--help", "-h", action="store_true")
        for flag in self.flags:
            parser.add_argument(flag, action="store_true")
        for option, action in self.values.items():
            parser.add_argument(option, action=action)
        options, unknown = parser.parse_known_intermixed_args(words)
        known = [*self.flags, *self.values, "--help"]
        for word in unknown:
            if self.schema is None or nearest(word, known):
                want = ", ".join(known)
                raise ConfigError(f"{word}: tif {self.name} has no such option; want {want}")
        options.argv, options.words = words, [*unknown, *options.words]
        for key in self.keys:
            given = [word for word in options.words if word.startswith(f"{key}=")]
            options.words = [word for word in options.words if word not in given]
            setattr(options, key, given[-1].removeprefix(f"{key}=") if given else None)
        return options

    def _help_text(self, topics: Sequence[str]) -> str:
        """Return what --help prints: all, or the sections and keys that are named."""
        doc = self.doc + (JSON_HELP if "--json" in self.flags else "") + EXIT_CODES
        return command_help(doc, self.schema, topics) if self.schema else doc

    def _work(self, options: argparse.Namespace) -> int:
        """Do the work, print what it returns, and return the exit code."""
        if not getattr(options, "json", False):
            return self.work(options) or 0
        with command_line.printing_to_stderr():
            content = self.work(options)
        if isinstance(content, Iterator):
            for item in _make_items(content):
                command_line.print_json(item, indent=None)
        elif not isinstance(content, int | None) and distributed.is_first_rank():
            command_line.print_json(content)
        return content if isinstance(content, int) else 0


def _make_items(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items; what is printed while one of them is made goes to stderr."""
    end = object()
    while True:
        with command_line.printing_to_stderr():
            item = next(items, end)
        if item is end:
            return
        yield item


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with the words as an error of the configuration."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")
