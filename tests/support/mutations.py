"""Hostile texts, seeded mutations of texts, bytes and JSON values, and what a command may do.

For the fuzzers in tests/fuzz and the tests of what reaches the terminal.
"""

import contextlib
import copy
import io
import json
import random
import traceback
import unicodedata

from tests.support.hangs import Hanging, no_hang

# Obeyed by terminals: erasing, a link, C1, direction, a return, markup of rich, NUL, line ends.
HOSTILE = (
    "\x1b[2J\x1b]8;;ftp:x\x07a\x1b]8;;\x07\x9b2J\x7f\u202eb\u2066\rc[red]d[blink]\x00\u2028\x85e"
)

_BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def controls_in(text):
    """Return the characters of a text that a terminal may obey, but for newline and tab."""
    obeyed = set()
    for character in text:
        is_control = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        if is_control or character in _BIDI:
            obeyed.add(character)
    return obeyed


TEXTS = (
    HOSTILE, "", " ", "\0", "\ufeff", "\ud83d", "x" * 20_000, "\u0301" * 2_000, "null", "NaN", "[",
    "{", "ß" * 300, "\n\n", "\r", "../../x", "~", "${oc.env:HOME}", "{prompt}", "%s", "[/red]",
    "$\\frac$", "\t", "'\"", "1e400", "a\nb\nc", "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    "9" * 5_000,
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-32", "cp037")
NUMBERS = (
    0, -1, 1, 10**400, -(10**400), 2**63, 1.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
DEEP = {f"@@deep {levels}@@": levels for levels in (200, 700, 60_000)}  # lists in lists


def to_json(value):
    """Return JSON of a mutated value; the names of DEEP become lists in lists."""
    text = json.dumps(value)
    for name, levels in DEEP.items():
        text = text.replace(f'"{name}"', "[" * levels + "]" * levels)
    return text


def hostile_value(rng):
    """Return a JSON value that nobody wants."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice((None, True, False, [], {}, [[]], {"": None}, *DEEP))
    if kind == 3:
        return [rng.choice(TEXTS) for _ in range(rng.randrange(4))]
    if kind == 4:
        return {rng.choice(TEXTS): rng.choice(NUMBERS)}
    if kind == 5:
        return [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]
    return rng.choice((rng.choice(TEXTS), rng.choice(NUMBERS), None))


def _places(value, place=()):
    """Yield the path to each part of a JSON value."""
    yield place
    items = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else items:
        yield from _places(part, (*place, key))


def mutate_json(rng, value):
    """Return a copy of a JSON value with one to three parts replaced, removed, doubled or added."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        *path, key = rng.choice(list(_places(value))) or (None,)
        if key is None:
            if rng.random() < 0.2:
                value = hostile_value(rng)
            continue
        parent = value
        for step in path:
            parent = parent[step]
        _change(rng, parent, key)
    return value


def _change(rng, parent, key):
    """Change the part of a list or an object that stands at `key`."""
    action = rng.choice(("replace", "replace", "remove", "double", "rename", "mutate", "mutate"))
    if action == "remove":
        del parent[key]
    elif action == "double" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif action == "rename" and isinstance(parent, dict):
        parent[rng.choice(TEXTS)] = parent.pop(key)
    elif action == "mutate" and isinstance(parent[key], str):
        parent[key] = mutate_text(rng, parent[key])
    elif action == "mutate" and isinstance(parent[key], int | float):
        with contextlib.suppress(OverflowError):
            parent[key] = parent[key] * rng.choice((-1, 0, 1.5, 10**6)) + rng.choice((0, 1, -1))
    else:
        parent[key] = hostile_value(rng)


def mutate_text(rng, text):
    """Return a text in which something is cut, doubled, moved or put in."""
    start, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return rng.choice((
        lambda: text[:start] + rng.choice(TEXTS) + text[start:],
        lambda: text[:start] + rng.choice(TEXTS) + text[end:],
        lambda: text[:start] + text[end:],
        lambda: text[:end] + text[start:end] * rng.choice((1, 3, 50)) + text[end:],
        lambda: text[:start],
        lambda: text[end:] + text[:end],
        lambda: text.swapcase(),
        lambda: rng.choice(TEXTS),
    ))()  # fmt: skip


def mutate_bytes(rng, data):
    """Return the bytes of a file with some of them cut, doubled, changed or in another encoding."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    noise = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 64))))
    return rng.choice((
        lambda: data[:start] + noise + data[start:],
        lambda: data[:start] + noise + data[start + len(noise) :],
        lambda: data[:start],
        lambda: data[:start] + data[end:],
        lambda: data[:end] + data[start:end] + data[end:],
        lambda: data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\0\n", b" ", b""))),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.decode(errors="replace").encode(rng.choice(ENCODINGS), "replace"),
        lambda: mutate_text(rng, data.decode(errors="replace")).encode(errors="surrogatepass"),
        lambda: noise,
        lambda: b"",
    ))()  # fmt: skip


def mutate_json_file(rng, data, lines=False):
    """Return a mutated .json file, or a .jsonl with one or two lines of it mutated."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, data)
    text = data.decode()
    if not lines:
        return to_json(mutate_json(rng, json.loads(text))).encode()
    rows = text.splitlines()
    for number in rng.sample(range(len(rows)), min(len(rows), rng.choice((1, 1, 2)))):
        rows[number] = to_json(mutate_json(rng, json.loads(rows[number])))
    if rng.random() < 0.1:
        rows.append(rng.choice(rows))
    return ("\n".join(rows) + "\n").encode()


def find_problem(call):
    """Return what is wrong with how a command's main function ends; None where nothing is.

    It must return 0, or 1 or 2 with one line on stderr, not hang, and print no control character.
    A traceback is always wrong.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with no_hang(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call()
    except SystemExit as ending:
        code = ending.code
    except Hanging:
        return f"it hangs: {traceback.format_exc(limit=-3)}"
    except Exception:
        return traceback.format_exc(limit=-6)
    errors = err.getvalue()
    if controls_in(out.getvalue() + errors):
        return f"control characters: {out.getvalue() + errors!r:.500}"
    if code not in (0, 1, 2):
        return f"exit code {code!r}: {errors!r:.300}"
    if code and (len(errors.splitlines()) != 1 or not errors.strip()):
        return f"exit code {code}, {len(errors.splitlines())} lines: {errors!r:.500}"
    return None


def find_problems(name, count, make_call):
    """Call `make_call(rng)` for `count` cases; return the problems with their numbers, "" for none.

    `make_call` returns a function without arguments, which is judged by `find_problem`. A case
    depends on its name and number alone.
    """
    problems = []
    for number in range(count):
        problem = find_problem(make_call(random.Random(f"{name} {number}")))
        if problem:
            problems.append(f"--- {name} {number}: {problem}")
    more = f"\n{len(problems)} of {count} cases of {name}" if problems else ""
    return "\n".join(problems[:8]) + more
