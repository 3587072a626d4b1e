import dataclasses

import pytest

from lab.speed.matrices import count_operations
from tests.support import tiny_models
from tests.support.bench_words import SMALL
from tif.bench.settings import BenchSettings
from tif.bench.step import make_random_model
from tif.config import load as config

pytestmark = pytest.mark.slow
# 25 tokens; 4 + 3 + 7 + 2 answer tokens.
BATCH = tiny_models.batch_of(*tiny_models.ITEMS)


def test_the_count_of_operations_is_that_of_the_products_of_a_model_written_out():
    shape = {
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50,
        "tie_word_embeddings": True,
    }  # fmt: skip
    settings = BenchSettings()
    settings.model.init = shape
    policy = make_random_model(settings.model)
    # q and o 8 x 8, k and v 4 x 8, three of 12 x 8; a vocabulary of 50
    block = 3 * (2 * 64 + 2 * 32 + 3 * 96)
    expected = 6 * (25 * block + 16 * 8 * 50)
    assert count_operations(policy, BATCH) == expected
    with_retain = dataclasses.replace(BATCH, retain=BATCH)
    assert count_operations(policy, with_retain) == 2 * expected


def test_a_matrix_that_is_not_trained_has_no_product_for_its_gradient():
    settings = config.read(BenchSettings, [*SMALL, "model.lora.rank=2"])
    policy = make_random_model(settings.model)
    # q and o 32 x 32, k and v 16 x 32, three of 64 x 32, two layers
    base = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)
    # LoRA of rank 2 on each: 2 x (out + in)
    adapters = 2 * 2 * (2 * (32 + 32) + 2 * (16 + 32) + 3 * (64 + 32))
    expected = 25 * (4 * base + 6 * adapters) + 16 * 4 * 32 * 4096
    assert count_operations(policy, BATCH) == expected


def test_gpt_2_whose_matrices_are_no_linear_layers_is_counted_too():
    policy = tiny_models.model("gpt2")
    shape = policy.config
    block = shape.n_layer * 12 * shape.n_embd**2  # q, k, v, o and two of 4 x
    expected = 6 * (25 * block + 16 * shape.n_embd * shape.vocab_size)
    assert count_operations(policy, BATCH) == expected
