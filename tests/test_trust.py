"""The sentences of docs/trust.md that no other test shows."""

import subprocess
import sys

import pytest

from tests.support.hangs import HANG
from tests.support.small_run import SMALL
from tif import fit
from tif.config import load as config
from tif.config.errors import ConfigError

WATCHED = """
import sys
def watch(event, args):
    if event == "socket.getaddrinfo" or event == "socket.connect" and isinstance(args[1], tuple):
        sys.stderr.write(f"CONNECTS {args}")
sys.addaudithook(watch)
from tif import fit
sys.exit(fit.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_on_local_folders_opens_no_connection(tmp_path):
    command = [sys.executable, "-c", WATCHED, "quickstart.yaml", *SMALL, f"run.folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CONNECTS" not in done.stderr


def test_yaml_makes_no_python_objects(tmp_path):
    path, trace = tmp_path / "evil.yaml", tmp_path / "ran"
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system"):
        path.write_text(f'run:\n  name: {tag} ["touch {trace}"]\n')
        with pytest.raises(ConfigError, match="not readable as YAML"):
            config.load([str(path)])
        assert not trace.exists()


def test_a_variable_of_the_environment_stands_in_the_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("A_VALUE", "of mine")
    path = tmp_path / "foreign.yaml"
    path.write_text('data:\n  template: "${oc.env:A_VALUE} {prompt}"\n')
    assert fit.main(["quickstart.yaml", str(path), "--print"]) == 0
    assert "template: of mine {prompt}" in capsys.readouterr().out


def test_a_loss_of_ones_own_is_imported_from_the_working_directory(tmp_path):
    (tmp_path / "foreign.py").write_text("print('it runs')\n")
    command = [sys.executable, "-m", "tif.fit", "loss.forget=foreign:term", "--print"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=tmp_path)
    assert done.stdout == "it runs\n"
    assert done.returncode == 2
