"""The README's example of a method of your own: a file and a YAML, written out and run as they stand there."""

import pathlib

import pytest

from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config import load as config

README = pathlib.Path(config.__file__).parents[2] / "README.md"


def block(name):
    """The indented lines of the README that begin with `# name`."""
    lines = iter(README.read_text(encoding="utf-8").splitlines())
    found = []
    for line in lines:
        if line == f"    # {name}" or (found and (line.startswith("    ") or not line)):
            found.append(line[4:])
        elif found:
            break
    return "\n".join(found).strip() + "\n"


@pytest.mark.skipif(not README.is_file(), reason="needs the checkout")
def test_the_readmes_own_method_runs_and_lowers_its_loss(tmp_path, tmp_path_factory, monkeypatch):
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
