"""Every causal LM family of transformers, by lab/architectures.csv, which this file writes.

`python -m tests.models.test_architectures --write` looks at all families and writes the table.
docs/model-families.md shows it.
"""

import csv
import pathlib
import sys
import warnings

import pytest
import transformers

from tests.support import adapter_cells, architecture_cells, architectures

COLUMNS = architecture_cells.COLUMNS | adapter_cells.COLUMNS
ROOT = pathlib.Path(__file__).parents[2]
PAGE, TABLE = ROOT / "docs" / "model-families.md", ROOT / "lab" / "architectures.csv"
# plain, windows, soft caps with windows, experts, a state, a hybrid, shifted positions, ALiBi
QUICK = ("llama", "mistral", "gemma2", "qwen3_moe", "mamba2", "qwen3_next", "opt", "bloom")
# Conv1D, fused experts, routers with a forward of their own, a hybrid, a vision tower
QUICK_WITH_ADAPTERS = ("gpt2", "glm4_moe", "phimoe", "jamba", "gemma3")
QUICK_CELLS = [(family, column) for family in QUICK for column in architecture_cells.COLUMNS]
QUICK_CELLS += [
    (family, column) for family in QUICK_WITH_ADAPTERS for column in adapter_cells.COLUMNS
]


# The families that the table was written with.
IS_LOOKED_AT = transformers.__version__.startswith("5.25.")


def look_at(family: str, column: str) -> str:
    """Return a cell: what the column's check saw, or what was wrong."""
    try:
        return COLUMNS[column](family)
    except Exception as error:
        return f"WRONG ({type(error).__name__}: {' '.join(str(error).split())[:80]})"


def read_table() -> dict[str, dict[str, str]]:
    """Return the cells of the table, by family and column."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("family"): row for row in rows}


FAMILIES = sorted(set(architectures.FAMILIES) & read_table().keys())


def write_table() -> None:
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", *COLUMNS])
        for family in architectures.FAMILIES:
            writer.writerow([family, *(look_at(family, column) for column in COLUMNS)])


@pytest.mark.parametrize(("family", "column"), QUICK_CELLS)
def test_a_family_does_what_the_table_says(family, column):
    assert look_at(family, column) == read_table()[family][column]


GUARDS = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "mistral", "phi3", "mixtral", "olmo2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=[pytest.mark.guard] if f in GUARDS else []) for f in FAMILIES],
)
def test_every_family_does_what_the_table_says(family):
    seen = {column: look_at(family, column) for column in COLUMNS}
    assert seen == read_table()[family]


@pytest.mark.parametrize(
    "family",
    [f if f == "opt" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES],
)
def test_with_the_rows_of_a_gpu_nothing_is_wrong_either(family, monkeypatch):
    monkeypatch.setenv("TIF_ROWS", "cuda")
    expected = read_table()[family]
    if family in architecture_cells.PADDED_ON_A_GPU:
        expected["packed"] = "refused"
    for column in ("packed", "chunks", "evaluation"):
        assert look_at(family, column) == expected[column], column


def test_the_table_has_every_family_and_column_and_nothing_wrong():
    table = read_table()
    assert sorted(table) == architectures.FAMILIES or not IS_LOOKED_AT
    for family, cells in table.items():
        assert list(cells) == list(COLUMNS)
        assert not [cell for cell in cells.values() if "WRONG" in cell], family


@pytest.mark.skipif(not IS_LOOKED_AT, reason="families of transformers 5.25")
def test_every_family_of_transformers_is_built_or_says_why_not():
    page = PAGE.read_text(encoding="utf-8")
    assert ", ".join(architecture_cells.GENERATE_DIFFERS) in " ".join(page.split())
    assert "; ".join(architecture_cells.PADDED_ON_A_GPU) in " ".join(page.split())
    with (ROOT / "lab" / "tables" / "families_not_built.csv").open(encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == list(architectures.NOT_BUILT.items())


if __name__ == "__main__" and "--write" in sys.argv:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    write_table()
