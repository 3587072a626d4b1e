"""tif.fit on LUME: a run from its data to its table."""

import pytest

from tests.support.lume_files import write
from tests.support.small_run import SMALL, rows
from tif import fit

KEYS = [
    "quickstart.yaml", *SMALL, "data.benchmark=lume", "identifier.kind=random",
    "data.max_tokens=32", "eval.forget_quality=false", "eval.retain_records=null",
    "run.keep_checkpoints=0", "trainer.max_epochs=1", "stages.target.trainer.max_epochs=2",
]  # fmt: skip


def test_a_run_on_lume_is_measured_by_verbmem_and_knowmem_and_names_its_benchmark(tmp_path, capsys):
    path, runs = write(tmp_path / "lume"), tmp_path / "runs"
    assert fit.main([*KEYS, f"data.path={path}", "data.split=task1", f"run.folder={runs}"]) == 0
    numbers = rows(runs / "quickstart")[-1]
    for kind in ("verbmem", "knowmem"):
        for name in ("forget", "retain"):
            assert 0 <= numbers[f"muse/{kind}_{name}"] <= 100
    assert {"words/unwanted", "words/general", "retain/loss"} <= numbers.keys()
    assert "muse/privleak" not in numbers
    assert "LUME task1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.path=null"], "data.path: lume needs a folder with LUME's forget.jsonl"),
        (["data.split=forget10"], "data.split: LUME has task1, task2, task3 (null = all three)"),
        (
            ["eval.forget_quality=true", "eval.retain_records=retain"],
            "eval.forget_quality: PrivLeak needs privleak_forget, which lume does not have",
        ),
    ],
)
def test_what_lume_lacks_is_told_before_weights_load(tmp_path, capsys, words, line):
    path, runs = write(tmp_path / "lume"), tmp_path / "runs"
    assert fit.main([*KEYS, f"data.path={path}", f"run.folder={runs}", *words]) == 2
    assert line in capsys.readouterr().err
    assert not runs.exists()
