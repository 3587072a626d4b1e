"""Every causal LM family of transformers: references, LoRA, exports and few bits are right or refused."""

import pytest

from tests.support import adapter_cells, architectures

COLUMNS = adapter_cells.COLUMNS
# Conv1D, shifted positions, fused experts, routers with a forward of their own, a hybrid, a vision tower
QUICK = ("gpt2", "opt", "glm4_moe", "phimoe", "jamba", "gemma3")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("family", QUICK)
def test_a_family_is_right(family, column):
    assert COLUMNS[column](family) == "right"


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(architectures.FAMILIES) - set(QUICK)))
def test_every_family_is_right_or_refused_in_one_line(family):
    cells = {column: check(family) for column, check in COLUMNS.items()}
    assert set(cells.values()) <= {"right", "refused"}
