"""The identifier `words`: the strings, regular expressions and patterns that the user lists."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import regex

from tif.config.errors import one_line
from tif.config.identifier import PATTERNS, Identifier
from tif.data.samples import Sample, Span, merge_spans
from tif.data.templates import Prompts
from tif.identifiers.registration import identifier
from tif.identifiers.string_search import find_strings
from tif.utils.files import read_bytes

EXPRESSION = "re:"  # an entry that begins so is a regular expression
MATCH_SECONDS = 10.0  # for one expression in one answer; some need exponential time

_MONTHS = (
    "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_YEAR = r"(?:,? \d{4})?"
# What `identifier.patterns` names. Recall comes first: a number with a wrong checksum counts too.
EXPRESSIONS = {
    "email": r"[\p{L}\p{N}_.+%-]{1,64}@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+",
    # 7 to 15 digits (ITU-T E.164) in groups, no date of the form 2024-05-31
    "phone": r"(?<![\w.+])(?!\d{4}-\d\d-\d\d(?!\d))"
    r"(?=[(+]{0,2}(?:[() ./-]{0,3}\d){7,15}(?![() ./-]?\d))"
    r"(?:\+|\(\+?)?\d+(?:[() ./-]{1,3}\d+)*(?!\w)",
    "date": rf"(?<!\w)(?:\d{{4}}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.](?:\d{{4}}|\d\d)"
    rf"|\d\d?(?:st|nd|rd|th)?(?: of)? {_MONTHS}\.?{_YEAR}|{_MONTHS}\.? \d\d?(?:st|nd|rd|th)?"
    rf"{_YEAR}|{_MONTHS} \d{{4}})(?!\w)",
    "number": r"(?<!\w)[+-]?\p{N}+(?:[.,:/'’ -]\p{N}+)*(?!\w)",
    "iban": r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)",
    "ssn": r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])",
}

assert tuple(EXPRESSIONS) == PATTERNS


def find_problems(section: Identifier) -> list[str]:
    """Return what is wrong with the list, one line each."""
    known = ", ".join(PATTERNS)
    problems = []
    for name in section.patterns:
        if name not in PATTERNS:
            problems.append(f"identifier.patterns: want any of {known}, got {name!r}")
    if not (section.words or section.patterns or section.path):
        problems.append(
            "identifier.words: kind words needs words=[...], a file (path) or patterns "
            f"({known}), got none"
        )
    return problems


def _describe(section: Identifier) -> dict[str, Any]:
    return {"words": read_entries(section), "patterns": section.patterns}


@identifier(
    "words", title="it is on your list: strings, regular expressions, patterns",
    check=find_problems, describe=_describe,
)  # fmt: skip
def identify_by_list(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Return the samples with every place of the listed words unwanted.

    A string counts at word borders, in its own case, whatever its quotation marks and hyphens look
    like (see `string_search`). A regular expression (the `regex` package's) counts where it
    matches. Entries that match nowhere are printed.

    Raises:
        ValueError: For an unreadable file, a wrong or too slow expression, or no match at all.
    """
    entries = read_entries(section)
    strings = [entry for entry in entries if not entry.startswith(EXPRESSION)]
    expressions = {}
    for entry in entries:
        if entry.startswith(EXPRESSION):
            expressions[entry] = _compile(entry)
    for name in section.patterns:
        expressions[name] = regex.compile(EXPRESSIONS[name])
    unused = {*strings, *expressions}
    identified = []
    for sample in samples:
        spans, missing = find_strings(strings, sample.answer)
        places = list(spans)
        unused -= {*strings} - {*missing}
        for entry, expression in expressions.items():
            matches = list(_find_matches(entry, expression, sample.answer))
            places += matches
            if matches:
                unused.discard(entry)
        identified.append(dataclasses.replace(sample, unwanted=merge_spans(places)))
    entries_in_order = [entry for entry in (*strings, *expressions) if entry in unused]
    if len(entries_in_order) == len({*strings, *expressions}):
        raise ValueError(
            f"identifier.words: none of {len(entries_in_order)} entries stands in the answers of "
            f"the {len(samples)} forget samples; want their spelling (also upper and lower case) "
            "in the data"
        )
    from tif.utils.terminal import console

    for entry in entries_in_order:
        console.print(f"in no forget answer: {entry}", soft_wrap=True)
    return tuple(identified)


def read_entries(section: Identifier) -> list[str]:
    """Return the listed strings and expressions: of key `words`, then those of the file.

    Raises:
        ValueError: If the file cannot be read.
    """
    entries = list(section.words)
    if section.path:
        try:
            content = read_bytes(Path(os.path.expanduser(section.path))).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"identifier.path: cannot read {section.path} ({one_line(error)}); want a UTF-8 "
                "text file with a word or an expression (re:...) a line"
            ) from None
        entries += content.splitlines()
    stripped = [entry.strip() for entry in entries]
    return list(dict.fromkeys(entry for entry in stripped if entry))


def _compile(entry: str) -> regex.Pattern:
    try:
        return regex.compile(entry.removeprefix(EXPRESSION))
    except regex.error as error:
        raise ValueError(
            f"identifier.words: {entry} is no regular expression ({one_line(error)})"
        ) from None


def _find_matches(entry: str, expression: regex.Pattern, text: str) -> Iterator[Span]:
    try:
        for match in expression.finditer(text, timeout=MATCH_SECONDS):
            if match.group().strip():
                yield Span(match.start(), match.end())
    except TimeoutError:
        raise ValueError(
            f"identifier.words: {entry} took more than {MATCH_SECONDS:.0f} seconds for an answer; "
            "want an expression without nested repetitions"
        ) from None
