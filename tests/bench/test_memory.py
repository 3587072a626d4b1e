"""The computed memory of a step, against arithmetic."""

import pytest

from tif.bench.memory import SHAPES, count_activations, estimate_need, make_config
from tif.config.model import Lora, Model

SMALL_SHAPE = (256, 704, 4, 8, 4, 4096, False)
BF16 = Model(dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # of frozen weights; here none is
def test_weights_gradients_and_optimizer_are_counted_by_arithmetic(dtype):
    # Llama-2-7B: 6,738,415,616 weights of 4 bytes, a gradient and two moments; or all of 2 bytes
    model = Model(dtype=dtype)
    need = estimate_need(make_config(SHAPES["7B"]), "full", 1, 1024, model)
    assert need.weights == need.gradients == 4 * 6738415616
    assert need.optimizer == 8 * 6738415616
    need = estimate_need(make_config(SHAPES["7B"]), "bf16", 1, 1024, model)
    assert need.weights == need.gradients == 2 * 6738415616
    assert need.optimizer == 4 * 6738415616


def test_mixed_precision_keeps_a_copy_of_each_layers_weights_for_the_backward_pass():
    config = make_config(SHAPES["7B"])
    mixed = count_activations(config, Model(dtype="float32"), 64, True)[0]
    bf16 = count_activations(config, BF16, 64, False)[0]
    linear = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert mixed - bf16 == pytest.approx(2 * linear, rel=0.02)


def test_lora_trains_its_rank_in_and_out_of_every_linear_layer_in_float32():
    model = Model(dtype="bfloat16", lora=Lora(rank=8))
    need = estimate_need(make_config(SHAPES["7B"]), "lora", 1, 1024, model)
    adapters = 32 * 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert need.gradients == 4 * adapters
    assert need.weights == 2 * 6738415616 + 4 * adapters


def test_four_bits_count_for_linear_layers_without_embeddings_and_head():
    need = estimate_need(make_config(SHAPES["7B"]), "nf4", 1, 1024, BF16)
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    other = 2 * 32000 * 4096 + 65 * 4096
    assert need.weights == pytest.approx(linear * 0.5159 + 2 * other + 4 * adapters, rel=1e-3)
    four = estimate_need(make_config(SHAPES["7B"]), "nf4", 4, 1024, BF16)
    assert four.weights == need.weights  # copies, not shards


def test_shards_divide_what_is_kept_and_add_what_is_gathered():
    shape = make_config(SMALL_SHAPE)
    for way in ("full", "bf16"):
        single, four = (estimate_need(shape, way, gpus, 128, BF16) for gpus in (1, 4))
        assert (four.weights, four.optimizer) == (single.weights / 4, single.optimizer / 4)
        assert single.gathered == 0 < four.gathered < single.weights + single.gradients
        # FSDP2 gathers bfloat16: autocast has no weights left to copy
        assert (four.activations < single.activations) is (way == "full")


def test_checkpointing_keeps_the_entry_of_each_layer_and_one_layer_whole():
    shape, checkpointing = make_config(SMALL_SHAPE), Model(gradient_checkpointing=True)
    full = estimate_need(shape, "full", 1, 512, Model()).activations
    less = estimate_need(shape, "full", 1, 512, checkpointing).activations
    inside = (full - less + 4 * 512 * 256 * 4) / 3  # of four layers, three are not held
    assert less < full
    assert inside > 10 * 512 * 256 * 4
