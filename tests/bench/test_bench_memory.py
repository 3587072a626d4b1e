"""What memory a step is said to need, against a small model that is really trained, and against arithmetic."""

import pytest

from tif.bench import memory as bench_memory
from tif.config.model import Lora, Model

BF16 = Model(dtype="bfloat16")


@pytest.mark.parametrize("way", ["full", "lora"])
def test_what_is_computed_is_what_a_small_model_needs_to_ten_percent(way):
    peak, said = bench_memory.measured(way, tokens=256)
    assert said == pytest.approx(peak, rel=0.1)


def test_weights_gradients_and_optimizer_are_counted_by_arithmetic():
    # Llama-2-7B: 6,738,415,616 weights; 2 bytes each, a gradient and two moments.
    found = bench_memory.need(bench_memory.llama(*bench_memory.SHAPES["7B"]), "full", 1, 1024, BF16)
    assert (found.weights, found.gradients, found.optimizer) == (2 * 6738415616, 2 * 6738415616, 4 * 6738415616)


def test_lora_trains_its_rank_in_and_out_of_every_linear_layer_in_float32():
    model = Model(dtype="bfloat16", lora=Lora(rank=8))
    found = bench_memory.need(bench_memory.llama(*bench_memory.SHAPES["7B"]), "lora", 1, 1024, model)
    adapters = 32 * 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert found.gradients == 4 * adapters
    assert found.weights == 2 * 6738415616 + 4 * adapters


def test_four_bits_count_for_linear_layers_without_embeddings_and_head():
    found = bench_memory.need(bench_memory.llama(*bench_memory.SHAPES["7B"]), "nf4", 1, 1024, BF16)
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    other = 2 * 32000 * 4096 + 65 * 4096
    assert found.weights == pytest.approx(linear * 0.5159 + 2 * other + 4 * adapters, rel=1e-3)
    four = bench_memory.need(bench_memory.llama(*bench_memory.SHAPES["7B"]), "nf4", 4, 1024, BF16)
    assert four.weights == found.weights  # copies, not shards


def test_shards_divide_what_is_kept_and_add_what_is_gathered():
    one, four = (bench_memory.need(bench_memory.llama(*bench_memory.SMALL), "full", n, 128, BF16) for n in (1, 4))
    assert (four.weights, four.optimizer) == (one.weights / 4, one.optimizer / 4)
    assert four.activations == one.activations
    assert one.gathered == 0 < four.gathered < one.weights + one.gradients


def test_checkpointing_keeps_the_entry_of_each_layer_and_one_layer_whole():
    shape, again = bench_memory.llama(*bench_memory.SMALL), Model(gradient_checkpointing=True)
    kept, less = (bench_memory.need(shape, "full", 1, 512, m).activations for m in (Model(), again))
    inside = (kept - less + 4 * 512 * 256 * 4) / 3  # of four layers, three are not held
    assert less < kept
    assert inside > 10 * 512 * 256 * 4
