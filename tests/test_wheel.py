"""The wheel: it holds every file that the package reads, and makes a run in another folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

import tif
from tests.support.small_run import SMALL

ROOT = pathlib.Path(tif.__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the checkout"),
]


def files_of(*folders):
    """Return the checkout's files in these folders, without those that git ignores."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--deduplicate", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout: building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in files_of():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(folder / "dist"),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("dist/*.whl")
    return path


@pytest.fixture
def environment(wheel, tmp_path):
    """An environment with the wheel, and below it the packages of this one but not the checkout."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = [
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_every_file_of_the_package_and_of_configs(wheel):
    expected = {
        f"tif/{name}" if name.startswith("configs/") else name
        for name in files_of("tif", "configs")
    }
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert in_wheel == expected
    assert "tif/py.typed" in in_wheel


def test_the_wheel_makes_a_run_in_another_folder(environment, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*words):
        command = [environment / "bin" / "tif", *words]
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=True
        ).stdout

    assert call("--version") == f"tif {tif.__version__}\n"
    assert "smollm2_135m" in call("ls", "models")
    assert "run folder: runs/quickstart" in call("fit", *SMALL)
    assert (folder / "runs" / "quickstart" / "summary.json").exists()
    assert "quickstart" in call("ls", "runs")
    python = [environment / "bin" / "python", "-c", "import tif; print(tif.__file__)"]
    place = subprocess.run(python, cwd=folder, env=env, capture_output=True, text=True, check=True)
    assert place.stdout.startswith(str(environment))
