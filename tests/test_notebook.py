"""The notebooks: stored without outputs, and run from top to bottom as a reader runs them."""

import pathlib
import sys

import nbclient
import nbformat
import pytest

from tests.support.small_run import SMALL

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# What a reader sees in the outputs of each.
SHOWN = {
    "01_quickstart": ("</mark>", "<th ", "report.html", "unlearned", "epoch 2: forget quality 0."),
    "02_identifiers": ("</mark>", "in no forget answer: date", "causal LM", "contrastive"),
    "03_methods": ("4/4 small/npo_on_words", "npo_on_words", "<th "),
    "04_your_own_data": (
        "ada@quill.example</mark>",
        "KnowMem retain",
        "Where does Ada Quill live?",
        "<li>prefix: ",
    ),
    "05_your_own_method": ("margin 8: forget quality 0.", "loss.margin: must be &gt; 0, got -1.0"),
}
PICTURES = {
    "01_quickstart": 2,
    "02_identifiers": 1,
    "03_methods": 2,
    "04_your_own_data": 0,
    "05_your_own_method": 1,
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_every_notebook_is_run():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHOWN) == sorted(PICTURES)


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Return a function that runs a notebook in an empty folder and gives its outputs."""
    # The kernel is this interpreter, whatever kernels are installed.
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = KernelSpec(argv=argv, display_name="test")
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda *_: kernel)
    monkeypatch.setenv("TIF_NOTEBOOK_OVERRIDES", " ".join(SMALL))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def run(name):
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
        place = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
        outputs = []
        for cell in notebook.cells:
            outputs += cell.get("outputs", [])
        return outputs

    return run


def texts_of(output):
    """Return what a reader sees of an output."""
    data = output.get("data", {})
    return output.get("text", "") + data.get("text/html", "") + data.get("text/plain", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_and_shows_what_it_promises(name, execute, tmp_path):
    outputs = execute(name)
    warnings = [output.text for output in outputs if output.get("name") == "stderr"]
    # tqdm says that it would like ipywidgets
    assert [text for text in warnings if "IProgress not found" not in text] == []
    assert (
        len([output for output in outputs if "image/png" in output.get("data", {})])
        == PICTURES[name]
    )
    shown = "".join(map(texts_of, outputs)).replace(
        "loss.margin: must be >", "loss.margin: must be &gt;"
    )
    for text in SHOWN[name]:
        assert text in shown, text
    if name != "03_methods":  # whose runs are in the sweep's folder
        assert list((tmp_path / "runs").glob("*/summary.json")) or name == "02_identifiers"
    assert len(list((tmp_path / "runs" / "stages").glob("*/summary.json"))) == 2
