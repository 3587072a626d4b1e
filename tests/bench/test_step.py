import json

import pytest

from tests.support.bench_words import SMALL, run_here
from tif.bench import command as bench
from tif.bench import step
from tif.bench.settings import BenchSettings
from tif.bench.step import draw_batches, load_training, make_random_model
from tif.config import load as config


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(step, "run_alone", run_here)


def measure(capsys, *words):
    assert bench.main([*SMALL, *words, "threads=1", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_step_is_measured_at_each_batch_size(capsys):
    rows = measure(capsys, "batch_sizes=[2,4]", "samples=8")
    assert [(row["batch_size"], row["steps"]) for row in rows] == [(2, 4), (4, 2)]
    for row in rows:
        assert row["seconds"] > 0
        assert row["tokens_per_second"] > 0
        assert row["whole_mb"] >= row["memory_mb"] >= 0
        assert row["loss"] > 4  # 2 ln 2 / beta = 4.6 where there is an unwanted word, and pl


def test_a_retain_term_adds_the_cross_entropy_of_retain_samples(capsys):
    words = ["batch_sizes=[2]", "samples=4", "memory=false"]
    (without,), (row,) = measure(capsys, *words), measure(capsys, *words, "retain=true")
    # The model is random: the retain samples' cross-entropy is the logarithm of the vocabulary.
    assert row["loss"] - without["loss"] == pytest.approx(8.3, abs=0.3)


def test_every_forget_sample_has_the_retain_sample_that_a_training_draws():
    policy, data = load_training(config.read(BenchSettings, [*SMALL, "retain=true"]))
    (batch,) = draw_batches(policy, data, 5, 1)
    rows = data.train_dataloader().dataset
    expected = [rows[position][2].id for position in batch.index.tolist()]
    assert list(batch.retain.ids) == expected
    assert len(set(expected)) > 1


def test_batches_hold_every_sample_once_before_one_comes_again():
    policy, data = load_training(config.read(BenchSettings, SMALL))
    total = len(data.items)
    batches = draw_batches(policy, data, 3, -(-2 * total // 3))
    order = [position for batch in batches for position in batch.index.tolist()]
    assert sorted(order[:total]) == list(range(total)) != order[:total]
    assert order[total : total + 3] == order[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "few_bits",
    [[], ["model.quantize=nf4"], ["model.dtype=bfloat16"]],
    ids=["lora", "nf4", "bfloat16"],
)
def test_adapters_four_bits_and_bfloat16_are_measured_as_they_are_trained(capsys, few_bits):
    words = ["model.lora.rank=2", *few_bits, "batch_sizes=[2]", "samples=4"]
    rows = measure(capsys, *words)
    for row in rows:
        assert row["whole_mb"] >= row["memory_mb"] >= 0
        assert row["loss"] > 4


def test_the_shapes_in_configs_have_as_many_weights_as_their_models():
    for name, weights in (("llama_3_2_3b", 3_212_749_824), ("llama_2_7b", 6_738_415_616)):
        settings = config.read(BenchSettings, [f"model/{name}_shape.yaml"])
        policy = make_random_model(settings.model, "meta")
        assert policy.num_parameters() == weights  # as their model cards say
