import pathlib
import sys

import nbclient
import nbformat
import pytest

from tests.support.small_run import SMALL

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
def test_the_quickstart_notebook_runs_and_shows_what_the_command_shows(tmp_path, monkeypatch):
    # The kernel is this interpreter, whatever kernels are installed.
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = KernelSpec(argv=argv, display_name="test")
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: kernel)
    monkeypatch.setenv("TIF_NOTEBOOK_OVERRIDES", " ".join(SMALL))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(FOLDER / "01_quickstart.ipynb", 4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    run = tmp_path / "runs" / "quickstart"
    assert (run / "summary.json").is_file()
    assert len(list((tmp_path / "runs" / "stages").glob("*/summary.json"))) == 2
    outputs = []
    for cell in notebook.cells:
        outputs += cell.get("outputs", [])
    streams = [output for output in outputs if output.output_type == "stream"]
    warnings = [output.text for output in streams if output.name == "stderr"]
    # tqdm says that it would like ipywidgets
    assert [text for text in warnings if "IProgress not found" not in text] == []
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    printed = "".join(output.text for output in streams)
    for text in ("[", "epoch  2  forget quality 0.", "true answer: ", "before: ", "after: "):
        assert text in printed
