"""A benchmark is one file: where it is, its name, keys and title are known everywhere."""

import json

import pytest

import tif.data.benchmarks
from tests.support.new_files import put_into_room
from tests.support.small_run import SMALL
from tif import fit, ls, report
from tif.config import presets, stored
from tif.config.keys import list_keys
from tif.config.schema import Config

FILE = '''
"""Riddles, a line each: question, tab, answer."""

from pathlib import Path

from tif.config.keys import key
from tif.data.benchmarks import benchmark
from tif.data.samples import Benchmark, Sample, Span


@benchmark("riddles", {"path": key(None, "file of riddles")}, title="The Riddles",
           about="riddles to forget", wants="a file of riddles", file="tofu.yaml")
def read(data, with_training):
    """Read the riddles."""
    path = Path(data.path)
    if not path.is_file():
        raise ValueError(f"data.path: no file {path}")
    samples = []
    for number, line in enumerate(path.read_text().splitlines()):
        question, answer = line.split("\\t")
        spans = (Span(0, len(answer)),)
        wrong = ("a cat", "a dog")
        samples.append(
            Sample(f"riddles/{number}", question, answer, spans, perturbed_answers=wrong)
        )
    half = len(samples) // 2
    forget, retain = tuple(samples[:half]), tuple(samples[half:])
    return Benchmark("riddles", forget, retain, {"forget": forget, "retain": retain})
'''


@pytest.fixture
def _new_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"What has {number} legs?\tthe animal number {number}\n" for number in range(12)]
    (tmp_path / "riddles.txt").write_text("".join(lines))
    with put_into_room(monkeypatch, tmp_path, tif.data.benchmarks, "riddles", FILE):
        yield


@pytest.mark.usefixtures("_new_file")
def test_a_new_file_is_a_benchmark_in_help_lists_and_the_schema(capsys):
    assert fit.main(["--help", "data.benchmark", "eval.benchmarks", "eval.riddles"]) == 0
    text = capsys.readouterr().out
    assert "|muse-news|riddles|text|" in text
    assert "muse-news, riddles, text, tofu or lm-eval:TASK" in text
    assert "  eval.riddles.path=null  (str or null)\n      file of riddles" in text
    assert ls.main(["benchmarks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["riddles"] == {
        "name": "riddles",
        "text": "riddles to forget",
        "path": "a file of riddles",
    }
    names = [name for name, _, _ in list_keys(Config()) if "riddles" in name]
    assert names == ["eval.riddles.path"]
    assert "eval.riddles.path" not in stored.list_counted()
    assert presets.complete_words(["data.benchmark=riddles"])[0][0] == "tofu.yaml"


@pytest.mark.usefixtures("_new_file")
def test_its_wrong_keys_are_refused_as_those_of_all_others(capsys):
    small = ["quickstart.yaml", *SMALL]
    assert fit.main([*small, "data.benchmark=riddles"]) == 2
    assert capsys.readouterr().err == "data.path: riddles needs a file of riddles, got null\n"
    assert fit.main([*small, "eval.benchmarks=riddles"]) == 2
    assert (
        capsys.readouterr().err == "eval.riddles.path: benchmark riddles needs its data, got null\n"
    )
    assert fit.main([*small, "eval.benchmarks=riddles", "eval.riddles.path=no.txt"]) == 2
    assert capsys.readouterr().err == "eval.riddles.path: no file no.txt\n"
    assert fit.main([*small, "eval.benchmarks=riddle"]) == 2
    assert "riddles" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("_new_file")
def test_a_run_unlearns_it_and_its_title_stands_in_the_table_and_on_the_page(tmp_path, capsys):
    words = [
        "quickstart.yaml",
        *SMALL,
        "data.benchmark=riddles",
        "data.path=riddles.txt",
        "run.folder=runs",
    ]
    assert fit.main(words) == 0
    folder = next(path.parent for path in tmp_path.glob("runs/*/summary.json"))
    capsys.readouterr()
    assert report.main([str(folder)]) == 0
    assert "The Riddles: before and after" in " ".join(capsys.readouterr().out.split())
    assert "The Riddles" in (folder / "report.html").read_text()
