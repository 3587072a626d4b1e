import json
import os

import pytest

from lab.speed import __main__ as bench
from lab.speed import identification
from lab.speed.settings import SpeedSettings
from tests.support.bench_words import run_here

pytestmark = pytest.mark.slow


def test_identify_measures_each_identifier_at_three_lengths(capsys, monkeypatch):
    monkeypatch.setattr(identification, "run_alone", run_here)
    assert bench.main(["what=identify", "words=1600", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = [(kind, words) for kind in identification.KINDS for words in (100, 400, 1600)]
    assert [(row["kind"], row["words"]) for row in rows] == expected
    for row in rows:
        assert row["seconds"] > 0
        speed, rounding = row["words"] / row["seconds"], row["words"] / 0.05
        assert row["words_per_second"] == pytest.approx(speed, rel=0.2, abs=rounding)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
def test_identify_counts_what_the_work_adds_though_more_was_held_before(monkeypatch):
    sizes = [80, 200]  # MB: of the document, and before it of the words that load the model
    monkeypatch.setattr("tif.identifiers.identify", lambda *_: b"x" * (sizes.pop() << 20))
    row = identification.measure_identifier("causal_lm", "none", 8, "one two " * 4, None)
    assert row["memory_mb"] == pytest.approx(80, abs=10)


def test_a_document_has_as_many_words_as_the_settings_say(tmp_path):
    (tmp_path / "a.txt").write_text("one  two\nthree " * 500)
    settings = SpeedSettings(words=1100, text=str(tmp_path / "a.txt"))
    words = identification.read_document(settings).split(" ")
    assert words[:4] == ["one", "two", "three", "one"]
    assert len(words) == 1100
    assert len(identification.read_document(SpeedSettings(words=1000)).split(" ")) == 1000
    assert identification.first_words("a b c d", 3) == "a b c"
