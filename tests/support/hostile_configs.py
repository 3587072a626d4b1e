"""Seeded hostile configurations: words of a command, YAML files, sweep files."""

import random

from tif.config import load as config
from tif.config.keys import list_keys
from tif.config.schema import Config

VALUES = (
    "", "null", "~", "nan", "inf", "-inf", "-1", "0", "1e400", "1" * 5000, "0x10", "1_000", "true",
    "yes", "[]", "{}", "[[[", "{a", "a: b", "[a, [b, {c: d}]]", "{on: 1}", "- x", "*anchor",
    "&a [*a]", "%", "\t", "'", '"', "!!python/object/apply:os.system [true]", "!!binary aGk=",
    "!!set {a}", "2024-01-01", "12:30:45", "${oc.env:NO_SUCH_VARIABLE}", "${missing}", "${model}",
    "${run.name}", "${", "${a:b}", "\\${x}", "???", "/dev/zero", "/proc/kmsg", "../x", "/", ".",
    "~nobody/x", "a" * 5000, "\x1b[31mred", "\u202eabc", "🚢", "é\u0301", "\x00", "\ud800", "a\nb",
    "module:function", "os:system", "json:", ":", "<<", "chat", "{prompt}", "[1e999]",
)  # fmt: skip
FORMS = (
    "{key}={value}", "{key}=[{value}]", "{key}={{{value}: {value}}}", "{key}.deep={value}",
    "{key}[0]={value}", "+{key}={value}", "{key}", "--{key}", "{key}=={value}", " {key} = {value}",
    "{key}.={value}", ".{key}={value}",
)  # fmt: skip


def words(generator: random.Random) -> list[str]:
    """Return one to three overrides with hostile values, mostly of known keys."""
    keys = [name for name, _, _ in list_keys(Config())]
    result = []
    for _ in range(generator.randint(1, 3)):
        key = generator.choice([*keys, "stages", "stages.target", "model", "loss", "", "a.b.c"])
        form = FORMS[0] if generator.random() < 0.7 else generator.choice(FORMS)
        result.append(form.format(key=key, value=generator.choice(VALUES)))
    return result


def yaml_texts() -> list[bytes]:
    """Return the contents of hostile files and of tif's own configs, whole runs first."""
    paths = sorted(config.own_configs().rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    return hostile_yaml() + [path.read_bytes() for path in paths]


def hostile_yaml() -> list[bytes]:
    """Return the contents of files that are hostile as they are."""
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{name}: &{name} [" + ",".join([f"*{before}"] * 9) + "]\n"
    hostile = [
        laughs, "[" * 3000, "a: " * 3000, "{" * 3000, "- " * 3000, "a: &a\n  b: *a\n",
        "? [a, b]\n: c\n", "a: 1\na: 2\n", "run: {name: 2024-01-01}\n", "--- a\n--- b\n",
        "\ufeffrun: {seed: 1}\n", "<<: *x\n", "<<: {run: {name: x}}\n", "run:\n\t- x\n",
        "run: {seed: " + "9" * 5000 + "}\n", "!!python/object/apply:os.system ['true']\n",
        "run: !!python/name:os.system\n", "1: {2: 3}\n", "null: 1\n", "true: 1\n",
        "run: {name: ${run.name}}\n", "run: ${run}\n", "stages: {a: {stages: {b: {}}}}\n",
        "stages: {a: 5, b: [], 3: {}}\n", "loss: {forget: os:system}\n", "loss: [1]\n", "data:\n",
        "data: ''\n",
    ]  # fmt: skip
    texts = [text.encode() for text in hostile]
    texts += [
        "run: {seed: 1}\n".encode("utf-16"),
        b"\xff\xfe\x00",
        b"\x00",
        b"",
        b"run: {name: caf\xe9}",
    ]
    return texts


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Return the content cut, with bytes changed, lines swapped or doubled, or words replaced."""
    kind = generator.randrange(5)
    if not content or kind == 0:
        return content[: generator.randrange(len(content) + 1)]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        return bytes(changed)
    lines = content.split(b"\n")
    place = generator.randrange(len(lines))
    if kind == 2:
        lines.insert(place, generator.choice(lines))
    elif kind == 3:
        lines[place] = b" " * generator.randrange(6) + lines[place].strip()
    else:
        value = generator.choice(VALUES).encode("utf-8", "surrogatepass")
        lines[place] = lines[place].partition(b":")[0] + b": " + value
    return b"\n".join(lines)
