"""The example of a method of your own in docs/methods.md: a file and a YAML, run as they stand."""

import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.hangs import HANG
from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.config import load as config
from tif.config import registry
from tif.config.errors import ConfigError

PAGE = pathlib.Path(config.__file__).parents[2] / "docs" / "methods.md"


def block(name):
    """Return the block of code in the page that begins with `# name`."""
    text = PAGE.read_text(encoding="utf-8")
    return re.search(rf"```\w+\n(# {re.escape(name)}\n.*?)```", text, re.DOTALL)[1]


@pytest.mark.skipif(not PAGE.is_file(), reason="needs the checkout")
def test_the_own_method_of_the_documentation_runs_and_lowers_its_loss(
    tmp_path, tmp_path_factory, monkeypatch
):
    runs = finished(tmp_path_factory).runs
    for name in ("hinge.py", "hinge.yaml"):
        (tmp_path / name).write_text(block(name), encoding="utf-8")
    assert 10 <= len(block("hinge.py").splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the working directory goes there
    words = [word for word in SMALL if not word.startswith("loss.")]
    assert (
        fit.main(["quickstart.yaml", "hinge.yaml", *words, f"run.folder={runs}", "run.name=hinge"])
        == 0
    )
    losses = [row["train/hinge"] for row in rows(runs / "hinge") if "train/hinge" in row]
    assert losses[0] == pytest.approx(5.0, abs=1e-3)  # loss.margin: nothing has fallen yet
    assert losses[-1] < losses[0]


SWEEP = "name: s\nbase: [quickstart.yaml, hinge.yaml]\nruns: {a: [], b: [loss.margin=3]}\n"


@pytest.mark.skipif(not PAGE.is_file(), reason="needs the checkout")
@pytest.mark.parametrize(
    "words",
    [
        "sweep hinges.yaml --list",
        pytest.param("fit quickstart.yaml hinge.yaml --print", marks=pytest.mark.slow),
    ],
)
def test_the_installed_command_finds_a_method_in_the_working_directory(tmp_path, words):
    for name in ("hinge.py", "hinge.yaml"):
        (tmp_path / name).write_text(block(name), encoding="utf-8")
    (tmp_path / "hinges.yaml").write_text(SWEEP)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "tif"  # what pip makes of pyproject.toml's entry
    script.write_text("import sys\nfrom tif.__main__ import run\nsys.exit(run())\n")
    command = [sys.executable, str(script), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=HANG)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hinge" in done.stdout


WRONG = "import dataclasses\nfrom tif.config.keys import key\nfrom tif.losses.terms import term\n"
KEYS = "@dataclasses.dataclass\nclass Keys:\n    {key}\n\n"
KEYS += "@term('{name}', keys=Keys)\ndef f(inputs, keys): ...\n"


@pytest.mark.parametrize(
    ("module", "key", "name", "words", "lines"),
    [
        (
            "own_a",
            "margin: float = key(5.0, 'x', above=0)",
            "a",
            ["loss.margn=1"],
            ["loss.margn: unknown key; did you mean loss.margin?"],
        ),
        (
            "own_b",
            "margin: float = key(5.0, 'x', above=0)",
            "b",
            ["loss.margin=0"],
            ["loss.margin: must be > 0, got 0.0"],
        ),
        (
            "own_c",
            "beta: float = key(5.0, 'x')",
            "c",
            [],
            ["loss.beta: own_c declares another key of this name"],
        ),
        (
            "own_d",
            "margin: float = key(5.0, 'x')",
            "npo",
            [],
            ["loss.forget: own_d names a term npo, as tif.losses.preference does"],
        ),
    ],
)
def test_an_own_methods_keys_are_checked_like_all_others(
    tmp_path, monkeypatch, module, key, name, words, lines
):
    (tmp_path / f"{module}.py").write_text(
        WRONG + KEYS.format(key=key, name=name), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", f"loss.forget={module}:f", *words])
    assert str(caught.value).splitlines() == lines


def test_an_own_methods_keys_are_no_keys_of_other_runs(tmp_path, monkeypatch):
    (tmp_path / "own_e.py").write_text(
        WRONG + KEYS.format(key="edge: int = key(5, 'x')", name="e"), encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cfg = config.load(["quickstart.yaml", "loss.forget=own_e:f", "loss.edge=7"])
    assert cfg.loss.edge == 7
    written = tmp_path / "config.yaml"
    written.write_text(config.to_yaml(cfg), encoding="utf-8")
    assert config.load([str(written)]) == cfg
    with pytest.raises(ConfigError, match="^loss.edge: unknown key"):
        config.load(["quickstart.yaml", "loss.edge=7"])


IMPORTS = {
    "raises": ("raise RuntimeError('no\\nluck')", "cannot be imported (RuntimeError: no luck)"),
    "exits": ("import sys; sys.exit(3)", "cannot be imported (SystemExit: 3)"),
    "recurses": ("def f(): f()\nf()", "cannot be imported (RecursionError"),
    "asserts": ("assert 1 > 2", "cannot be imported (AssertionError: AssertionError)"),
    "null": ("x = '\0'", "cannot be imported (SyntaxError: source code string cannot"),
    "syntax": ("def", "cannot be imported (SyntaxError: invalid syntax"),
    "empty": ("", "cannot be imported (AttributeError: module 'own_import_empty' has no"),
    "number": ("f = 3", "is no term"),
    "lpl_again": (
        "from tif.losses.terms import term\n@term('lpl')\ndef f(inputs, keys): ...",
        "names a term lpl, as tif.",
    ),
    "twice": (
        ("from tif.losses.terms import term\n@term('t')\ndef f(inputs, keys): ...\n@term('t')\n"
         "def g(inputs, keys): ..."),
        "names two terms t; want a name each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPORTS)
def test_a_module_that_is_no_loss_is_one_line(tmp_path, monkeypatch, name):
    code, reason = IMPORTS[name]
    (tmp_path / f"own_import_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.TABLES, "forget", dict(registry.TABLES["forget"]))
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", f"loss.forget=own_import_{name}:f"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("loss.forget: ")
    assert reason in line


@pytest.mark.parametrize(
    "name", ["..:f", ".a:f", "a..b:f", "json:loads", "os.path:join", "no.such.module:f", "tif:f"]
)
def test_names_of_no_module_or_of_no_term_are_one_line(name):
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", f"loss.forget={name}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("loss.forget: ")
