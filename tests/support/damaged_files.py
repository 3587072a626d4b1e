"""Seeded damage to files of a run, as kills, failing disks and unlucky users do it."""

import json
import os
import shutil

WRONG = (
    None, True, -1, 0, 2**63, 10**400, -1e308, 1e308, float("nan"), float("inf"), "", "x", "\x00",
    "../../etc/passwd", "a" * 100_000, [], [[]], {}, {"": {}}, [None] * 1000, "\ud800", 1.5,
)  # fmt: skip
DEEP = "[" * 100_000
HUGE = 1_500_000_000  # bytes of a sparse file


def damage(path, draw, others):
    """Damage a file; return what was done.

    Args:
        path: of the file.
        draw: random.Random.
        others: files whose content may take the place of this one's.
    """
    name = draw.choice(sorted(KINDS))
    if name == "value" and path.suffix not in (".json", ".jsonl"):
        name = "cut"
    KINDS[name](path, draw, others)
    return f"{name} {path.name}"


def _cut(path, draw, others):
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def _empty(path, draw, others):
    path.write_bytes(b"")


def _zeros(path, draw, others):
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content) + 1)
    end = min(len(content), start + draw.choice([1, 100, 4096, len(content)]))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def _flip(path, draw, others):
    content = bytearray(path.read_bytes() or b"\0")
    for _ in range(draw.choice([1, 10])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _noise(path, draw, others):
    path.write_bytes(draw.randbytes(draw.choice([1, 100, 5000])))


def _swap(path, draw, others):
    path.write_bytes(draw.choice(others).read_bytes())


def _repeat_line(path, draw, others):
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
    path.write_bytes(b"".join(lines))


def _zero_line(path, draw, others):
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    lines.insert(draw.randrange(len(lines) + 1), b"\0" * 50 + b"\n")
    path.write_bytes(b"".join(lines))


def _lose_line(path, draw, others):
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    del lines[draw.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def _encode(path, draw, others):
    text = path.read_bytes().decode("latin-1")
    path.write_bytes(text.encode(draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037"])))


def _nest(path, draw, others):
    path.write_text(draw.choice([DEEP, '{"a":' * 50_000, f'{{"epoch": {DEEP}\n', "- " * 5_000]))


def _folder(path, draw, others):
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("")


def _device(path, draw, others):
    path.unlink()
    path.symlink_to(
        draw.choice(["/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem", "/proc/kmsg"])
    )


def _pipe(path, draw, others):
    path.unlink()
    os.mkfifo(path)


def _link(path, draw, others):
    path.unlink()
    path.symlink_to(draw.choice(["nowhere", path.name, "..", "/"]))


def _sparse(path, draw, others):
    with path.open("wb") as file:
        file.truncate(HUGE)


def _missing(path, draw, others):
    path.unlink()


def _missing_folder(path, draw, others):
    shutil.rmtree(path.parent)


def _value(path, draw, others):
    """Change, delete or add a value anywhere in the JSON of a file or of one of its lines."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    number = draw.randrange(len(lines))
    content = json.loads(lines[number])
    places = [(content, key) for key in _keys(content)]
    for container, key in places:
        places += [(container[key], inner) for inner in _keys(container[key])][:50]
        if len(places) > 2000:
            break
    container, key = draw.choice(places)
    if draw.random() < 0.3:
        del container[key]
    else:
        container[key] = draw.choice(WRONG)
    lines[number] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _keys(value):
    if isinstance(value, dict):
        return list(value)
    return range(len(value)) if isinstance(value, list) else ()


KINDS = {
    "cut": _cut, "empty": _empty, "zeros": _zeros, "flip": _flip, "noise": _noise, "swap": _swap,
    "repeat-line": _repeat_line, "zero-line": _zero_line, "lose-line": _lose_line,
    "encode": _encode, "nest": _nest, "folder": _folder, "device": _device, "pipe": _pipe,
    "link": _link, "sparse": _sparse, "missing": _missing, "missing-folder": _missing_folder,
    "value": _value,
}  # fmt: skip
