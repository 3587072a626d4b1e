import pathlib
import sys

import nbclient
import nbformat
import pytest

from tests.support.small_run import SMALL

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


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
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: KernelSpec(argv=argv, display_name="test"))
    monkeypatch.setenv("TIF_NOTEBOOK_OVERRIDES", " ".join(SMALL))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(next(p for p in NOTEBOOKS if p.name == "01_quickstart.ipynb"), 4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    run = tmp_path / "runs" / "quickstart"
    assert (run / "summary.json").is_file()
    assert len(list((tmp_path / "runs" / "stages").glob("*/summary.json"))) == 2
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    complaints = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not [text for text in complaints if "IProgress not found" not in text]  # tqdm asks for ipywidgets
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 2
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    for text in ("[", "epoch  2  forget quality 0.", "true answer: ", "before: ", "after: "):
        assert text in printed
