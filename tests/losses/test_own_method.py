"""The example of a method of your own in docs/methods.md: a file and a YAML, run as they stand."""

import pathlib
import re

import pytest

from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config import load as config

PAGE = pathlib.Path(config.__file__).parents[2] / "docs" / "methods.md"


def block(name):
    """Return the block of code in the page that begins with `# name`."""
    text = PAGE.read_text(encoding="utf-8")
    return re.search(rf"```\w+\n(# {re.escape(name)}\n.*?)```", text, re.DOTALL)[1]


@pytest.mark.skipif(not PAGE.is_file(), reason="needs the checkout")
def test_the_own_method_of_the_documentation_runs_and_lowers_its_loss(tmp_path, tmp_path_factory, monkeypatch):
    runs = finished(tmp_path_factory).runs
    for name in ("hinge.py", "hinge.yaml"):
        (tmp_path / name).write_text(block(name), encoding="utf-8")
    assert 10 <= len(block("hinge.py").splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does with the working directory
    own = [word for word in SMALL if not word.startswith("loss.")]
    assert fit.main(["quickstart.yaml", "hinge.yaml", *own, f"run.folder={runs}", "run.name=hinge"]) == 0
    losses = [row["train/hinge"] for row in rows(runs / "hinge") if "train/hinge" in row]
    assert losses[0] == pytest.approx(5.0, abs=1e-3)  # own.margin: nothing has fallen yet
    assert losses[-1] < losses[0]
