"""`run.name` is the name of one folder, beside those that tif makes itself."""

import pytest

from tif.config.run import OTHER_FOLDERS, RunKeys

NAMES = (
    "run", "tofu-1B,lr=1e-5", "über lr_3.14", "東京", "v1.2", "x" * 100,
    "sweep/lr=1,loss=[a]/seed0", f"s/{'v' * 200}/seed12",
)  # fmt: skip
NO_NAMES = (
    "a/b", "/a", "a/", "..", ".", "", " ", "a ", " a", ".hidden", "-rf", "a\nb", "a\tb", "a\0b",
    "a\x1b[31mb", "a\u202eb", "a\\b", "x" * 101, "é" * 51, "\ud800", *OTHER_FOLDERS, "../a/seed0",
    "a/../seed0", "a/b/seed0/..", "a//seed0", "stages/a/seed0", f"s/{'v' * 251}/seed1", "a/b/seed",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken(name):
    assert RunKeys(name=name).find_problems() == []


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_with_one_line(name):
    (line,) = RunKeys(name=name).find_problems()
    assert line.startswith("run.name: want a name")
    assert line.isprintable()
    assert len(line) < 400
