"""The console script `tif`: its commands, its version, and that it is `python -m tif.<name>`."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import tif
from tests.support.hangs import HANG
from tif import __main__ as script
from tif import ls
from tif.config import load
from tif.utils.environment import read_commit

PACKAGE = pathlib.Path(tif.__file__).parent


def call(*words, module="tif"):
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG)


def test_every_module_that_can_be_called_is_a_command_of_tif():
    modules = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__main__.py")}
    assert modules == set(script.COMMANDS)


def test_help_lists_the_commands_without_importing_them():
    code = (
        "import sys; from tif.__main__ import main; main(['--help']); "
        "print([m for m in ('omegaconf', 'rich', 'torch', 'tif.fit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert "`python -m tif.fit` is the same command" in done.stdout
    listed = [
        line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("    ")
    ]
    assert listed == list(script.COMMANDS)
    assert max(map(len, lines)) <= 80


def test_an_unknown_command_names_the_nearest(capsys):
    assert script.main(["sweeep"]) == 2
    assert (
        capsys.readouterr().err
        == "tif sweeep: no such command; did you mean sweep?; see tif --help\n"
    )
    assert script.main([]) == 2
    assert script.main(["unlearn", "quickstart.yaml"]) == 2
    assert capsys.readouterr().err.startswith("tif unlearn: no such command; did you mean fit?")


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "loss.bata=1"],
        ["ls", "runs", "nowhere"],
        pytest.param(["report", "nowhere"], marks=pytest.mark.slow),  # the same wrapper
        pytest.param(["sweep"], marks=pytest.mark.slow),
    ],
)
def test_tif_and_python_m_say_the_same_and_exit_with_the_same_code(words):
    script_call, module_call = call(*words), call(*words[1:], module=f"tif.{words[0]}")
    assert script_call.returncode == module_call.returncode == 2
    assert script_call.stdout == module_call.stdout
    assert script_call.stderr == module_call.stderr
    assert script_call.stdout + script_call.stderr


def test_the_entry_point_is_the_one_that_exists():
    import tomllib

    file = PACKAGE.parent / "pyproject.toml"
    if not file.exists():
        pytest.skip("needs the checkout")
    assert tomllib.loads(file.read_text())["project"]["scripts"] == {"tif": "tif.__main__:run"}
    assert callable(script.run)


def test_the_version_names_the_commit_of_the_checkout_only(tmp_path, capsys):
    assert script.main(["--version"]) == 0
    commit = read_commit()
    expected = f"tif {tif.__version__}" + (f" (commit {commit})" if commit else "")
    assert capsys.readouterr().out == f"{expected}\n"
    # A package that is installed in somebody's repository is not of its commit.
    shutil.copytree(PACKAGE, tmp_path / "tif", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tif", "--version"], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"tif {tif.__version__}\n"


def test_ls_benchmarks_names_what_data_benchmark_takes(capsys):
    from tif.config.keys import list_keys
    from tif.config.schema import Config

    (field,) = [field for name, field, _ in list_keys(Config()) if name == "data.benchmark"]
    names = [row["name"] for row in ls.list_benchmarks()]
    assert names == [*field.metadata["choices"], "lm-eval:TASK"]
    assert ls.main(["benchmarks"]) == 0
    assert "eval.tofu.path" in capsys.readouterr().out


def test_ls_methods_shows_every_term_and_every_file_of_a_method(capsys, monkeypatch):
    from tif.config.load import own_configs
    from tif.losses import FORGET, RETAIN

    monkeypatch.setattr("tif.utils.terminal.console.width", 400, raising=False)
    assert ls.main(["methods"]) == 0
    words = set(re.sub("[,=]", " ", capsys.readouterr().out).split())
    assert {path.stem for path in (own_configs() / "loss").glob("*.yaml")} <= words
    assert {name for name in FORGET if ":" not in name} | RETAIN.keys() <= words


def test_ls_models_shows_every_model_that_has_a_hub_name(capsys):
    from tif.config.load import own_configs

    assert ls.main(["models"]) == 0
    first_words = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    shapes = {path.stem for path in (own_configs() / "model").glob("*_shape.yaml")}
    names = {path.stem for path in (own_configs() / "model").glob("*.yaml")} - shapes
    assert "smollm2_135m" in names
    assert names <= first_words
    assert not shapes & first_words


def test_ls_experiments_names_each_sweep_and_what_it_compares(capsys):
    assert ls.main(["experiments"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for path in (load.own_configs() / "experiment").glob("*.yaml"):
        assert f"experiment/{path.name}" in text
    assert "Nine methods on the quickstart" in text
    assert "sbatch" not in text


def test_ls_refuses_a_list_that_is_none(capsys):
    assert ls.main(["method"]) == 2
    assert "did you mean methods?" in capsys.readouterr().err
    assert ls.main(["models", "runs"]) == 2
    assert capsys.readouterr().err == "tif ls models: want nothing after it, got runs\n"
