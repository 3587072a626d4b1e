"""Hostile texts, seeded mutations of texts, bytes and JSON values, and what a command may do.

For the fuzzers in tests/fuzz and the tests of what reaches the terminal.
"""

import unicodedata

# Obeyed by terminals: erasing, a link, C1, direction, a return, markup of rich, NUL, line ends.
HOSTILE = "\x1b[2J\x1b]8;;ftp:x\x07a\x1b]8;;\x07\x9b2J\x7f\u202eb\u2066\rc[red]d[blink]\x00\u2028\x85e"
SECONDS = 5.0  # for one case

_BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def controls_in(text):
    """Return the characters of a text that a terminal may obey, but for newline and tab."""
    obeyed = set()
    for character in text:
        is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        if is_control or character in _BIDI:
            obeyed.add(character)
    return obeyed
