import json

import pytest
from torch.utils.flop_counter import FlopCounterMode

from lab.speed import __main__ as bench
from lab.speed import compare_ways, ways
from lab.speed.settings import SpeedSettings
from tests.support.bench_words import SMALL, run_here
from tif.bench.step import draw_batches, load_training, make_idle_optimizer, take_step
from tif.config import load as config

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(compare_ways, "run_alone", run_here)


def measure(capsys, *words):
    assert bench.main([*SMALL, *words, "threads=1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_step_compares_four_ways_on_the_same_batches(capsys):
    rows = measure(capsys, "batch_sizes=[2,4]", "samples=8", "release=2")
    smaller = [(2, name) for name in ("ours", "release", "two-pass", "dynamic")]
    larger = [(4, name) for name in ("ours", "two-pass", "dynamic")]
    assert [(row["batch_size"], row["way"]) for row in rows] == smaller + larger
    assert [row["steps"] for row in rows] == [4, 1, 4, 4, 2, 2, 2]
    for row in rows:
        assert row["seconds"] > 0
        assert row["memory_mb"] >= 0
        assert row["loss"] > 4  # 2 ln 2 / beta = 4.6 where there is an unwanted word, and pl
        assert 0 < row.get("share", 0.5) < 1
    assert {row["ratio"] for row in rows if row["way"] == "ours"} == {1}
    assert rows[1]["ratio"] > 0


def test_the_release_multiplies_matrices_for_its_padding_too():
    """To 500 tokens, where samples have about 40."""
    settings = config.read(SpeedSettings, [*SMALL, "batch_sizes=[2]", "samples=2", "release=2"])
    policy, data = load_training(settings)
    (batch,) = draw_batches(policy, data, 2, 1)
    operations = {}
    for name in ("ours", "release"):
        with FlopCounterMode(display=False) as counter:
            take_step(ways.make_way(name, policy, data), make_idle_optimizer(policy), batch)
        operations[name] = counter.get_total_flops()
    assert operations["release"] > 2 * operations["ours"]


def test_with_a_retain_term_all_ways_have_the_same_larger_loss(capsys):
    words = ["batch_sizes=[2]", "samples=4", "release=2"]
    without, rows = measure(capsys, *words), measure(capsys, *words, "retain=true")
    assert [row["way"] for row in rows] == ["ours", "release", "two-pass", "dynamic"]
    assert len({row["loss"] for row in rows if row["way"] != "release"}) == 1
    # The model is random: the retain samples' cross-entropy is the logarithm of the vocabulary.
    added = rows[0]["loss"] - without[0]["loss"]
    assert added == pytest.approx(8.3, abs=0.3)
    assert rows[0]["memory_mb"] >= 0


def test_ways_whose_losses_differ_are_not_measured(monkeypatch):
    monkeypatch.setattr(ways, "preservation_loss", lambda logits, batch: 0 * logits.sum())
    with pytest.raises(AssertionError, match="loss differs"):
        bench.main([*SMALL, "batch_sizes=[2]", "samples=2", "release=0", "memory=false"])


@pytest.mark.parametrize(
    "few_bits",
    [[], ["model.quantize=nf4"], ["model.dtype=bfloat16"]],
    ids=["lora", "nf4", "bfloat16"],
)
def test_adapters_four_bits_and_bfloat16_are_measured_as_they_are_trained(capsys, few_bits):
    words = ["model.lora.rank=2", *few_bits, "batch_sizes=[2]", "samples=4", "release=0"]
    rows = measure(capsys, *words)
    assert [row["way"] for row in rows] == ["ours", "two-pass", "dynamic"]
    for row in rows:
        assert row["whole_mb"] >= row["memory_mb"] >= 0
        assert row["loss"] > 4
