"""Pipes, devices, files of /proc and exploding YAML as input: one line at once, nothing waits."""

import os

import pytest

import tif.identify as identify
from tests.support.hangs import no_hang
from tests.support.small_run import SMALL
from tif import report
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.data.benchmarks import read_benchmark
from tif.identifiers import span_file
from tif.identifiers.word_list import read_entries
from tif.records import files as records
from tif.sweep import command as sweep
from tif.training.plan import plan_run
from tif.utils.files import read_bytes

KINDS = ("pipe", "zero", "kmsg", "folder")


@pytest.fixture(autouse=True)
def _no_hang():
    """End a test that waits."""
    with no_hang():
        yield


@pytest.fixture
def place(tmp_path):
    """Make a pipe, a device, a waiting file of /proc or a folder under a name; return its path."""

    def make(kind, name):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to({"zero": "/dev/zero", "kmsg": "/proc/kmsg"}[kind])
        return path

    return make


def one_line(error):
    (line,) = str(error.value).splitlines()
    return line


def read_words(path):
    return read_entries(
        config.load(
            ["quickstart.yaml", "identifier.kind=words", f"identifier.path={path}"]
        ).identifier
    )


READERS = {
    "a configuration": ("x.yaml", config.read_yaml),
    "a text": ("x.txt", lambda path: data("text", path)),
    "rows": ("x.jsonl", lambda path: data("text", path)),
    "TOFU": ("forget10.json", lambda path: data("tofu", path.parent)),
    "MUSE": ("forget.json", lambda path: data("muse", path.parent)),
    "records": ("eval_log_forget.json", records.read_evaluation),
    "records in a folder": ("aggregates.json", lambda path: records.read_evaluation(path.parent)),
    "spans": ("x.jsonl", lambda path: span_file.attach_spans(path, ())),
    "words": ("x.txt", read_words),
}


def data(benchmark, path):
    return read_benchmark(config.load(["quickstart.yaml", *SMALL, f"data.benchmark={benchmark}",
                                       f"data.path={path}", "identifier.kind=all",
                                       "eval.forget_quality=false"]).data)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits_for_a_pipe_a_device_or_a_file_of_proc(place, reader, kind):
    name, read = READERS[reader]
    path = place(kind, name)
    if kind == "kmsg" and reader in ("a configuration", "words"):
        assert len(read(path)) == 0  # as of an empty file
        return
    with pytest.raises((ValueError, OSError)) as caught:
        read(path)
    assert one_line(caught)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_do_not_wait_either(place, capsys, kind):
    path = place(kind, "x.yaml")
    for main, words in (
        (identify.main, ["compare", str(path), str(path)]), (report.main, [str(path)]),
        (sweep.main, [str(path)]),
    ):  # fmt: skip
        assert main(words) in (1, 2)
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_of_proc_counts_as_empty():
    assert read_bytes("/proc/version") == b""


PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
LINES = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in PAIRS)
YAML = {
    "aliases": f"a: &a [x]\n{LINES}",
    "an alias in itself": "a: &a [*a]\n",
    "a mapping in itself": "a: &a {b: *a}\n",
    "depth": "a: " + "[" * 5000 + "]" * 5000,
    "length": "a: " + "x" * 300_000,
    "a tag": "a: !!python/object/apply:os.system ['true']\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "bytes": "\udcff",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_that_explodes_or_runs_code_is_one_line(tmp_path, name):
    path = tmp_path / "x.yaml"
    path.write_text(YAML[name], encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", str(path)])
    assert one_line(caught).startswith(f"{path}: not readable as YAML (")


def test_files_that_include_each_other_many_times_over_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):  # 12 ** 5 includes
        names = ", ".join([f"f{number + 1}.yaml"] * 12)
        (tmp_path / f"f{number}.yaml").write_text(f"include: [{names}]\n" if number < 5 else "")
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", "f0.yaml"])
    assert "want a list of files, none that includes itself, at most 50 in all" in one_line(caught)


def test_aliases_that_explode_in_a_word_are_one_line():
    laughs = YAML["aliases"].replace("\n", ", ")
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", f"stages={{{laughs}}}"])
    assert "not a key=value that YAML can read" in one_line(caught)


@pytest.mark.parametrize(("text", "times"), [("x", 10), ("x" * 100_000, 2)])
def test_references_that_explode_are_one_line(tmp_path, text, times):
    lines = [f"    k0: {text}\n"]
    for number in range(30):  # each value holds the one before it several times
        reference = f"${{stages.a.k{number}}}"
        lines.append(f"    k{number + 1}: {reference * times}\n")
    path = tmp_path / "x.yaml"
    path.write_text("stages:\n  a:\n" + "".join(lines))
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", str(path)])
    assert one_line(caught).startswith("references: ")


def test_of_thousands_of_wrong_keys_only_the_first_are_looked_up(tmp_path, monkeypatch):
    looked_up, look_up = [], config.nearest

    def note(key, known):
        looked_up.append(key)
        return look_up(key, known)

    monkeypatch.setattr(config, "nearest", note)
    path = tmp_path / "x.yaml"
    path.write_text("".join(f"key{number}: 1\n" for number in range(4900)))
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", str(path)])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: key0: unknown key"
    assert lines[-1] == f"{path}: and more; the first 50 are shown"
    assert len(lines) == 51
    assert looked_up == [f"key{number}" for number in range(50)]


def test_anchors_of_ones_own_stay(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("data: &d {batch_size: 3}\nstages: {other: {data: {<<: *d}}}\n")
    cfg = config.load(["quickstart.yaml", str(path)])
    assert config.stage(cfg, "other").data.batch_size == cfg.data.batch_size == 3


PATH_KEYS = {
    "data.path": ["data.benchmark=text", "identifier.kind=all"],
    "identifier.path": ["identifier.kind=precomputed"],
    "eval.retain_records": [],
    "model.path": [],
    "run.resume": [],
    "identifier.causal_lm.model": ["identifier.kind=causal_lm"],
}


@pytest.mark.slow
@pytest.mark.parametrize("key", PATH_KEYS)
def test_paths_that_are_none_are_refused_in_planning(place, tmp_path, key):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("config.json", "aggregates.json", "forget.jsonl", "x.txt"):
        os.mkfifo(folder / name)
    (tmp_path / "loop").symlink_to("loop")
    paths = ("/dev/zero", "/dev/null/x", place("pipe", "p.jsonl"), place("kmsg", "k.jsonl"), folder,
             "./loop", tmp_path / "loop", "~nobody-here/x", "/proc/self")  # fmt: skip
    for path in paths:
        words = [*SMALL, f"run.folder={tmp_path / 'runs'}", *PATH_KEYS[key], f"{key}={path}"]
        cfg = config.load(["quickstart.yaml", *words])
        with pytest.raises(ConfigError) as caught:
            plan_run(cfg)
        assert one_line(caught).startswith(key)
    assert not (tmp_path / "runs").exists()
