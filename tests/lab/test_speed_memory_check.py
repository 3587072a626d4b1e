"""The memory that tif bench computes, against a small model that is trained."""

import pytest

from lab.speed.memory_check import check_small_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", ["full", "bf16", "lora"])
def test_what_is_computed_is_what_a_small_model_needs_to_ten_percent(way):
    # The peak is in the backward pass, unless few tokens are scored: then the optimizer's.
    need, peak = check_small_model(way, tokens=768 if way == "bf16" else 256)
    assert sum(need) == pytest.approx(peak, rel=0.1)
