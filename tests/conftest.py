"""Fixtures of all tests: a tiny tokenizer and tiny models, real data and model where present."""

import os
import pathlib

import pytest

# One core for each worker: with more threads than cores the tests take four times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test asks the hub; before huggingface_hub is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.support.texts import TEXTS


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE of 400 tokens, trained on TEXTS; end token and pad token differ.

    Made here, no download. Shared by all tests: do not change it.
    """
    from tif.config.schema import Model
    from tif.models.load import load_tokenizer

    return load_tokenizer(Model(init={"vocab_size": 400}), TEXTS)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder of the real data (tofu/, tofu_masks/, ...); TIF_SHARED names its parent.

    Skips where it is absent.
    """
    folder = (
        pathlib.Path(
            os.environ.get("TIF_SHARED") or pathlib.Path(__file__).parents[1].parent / "shared"
        )
        / "data"
    )
    if not folder.is_dir():
        pytest.skip(f"no {folder}: needs the benchmark data")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
    """Folder of SmolLM2-135M in Hugging Face format; skips where absent."""
    folder = pathlib.Path("~/.cache/tif-test/smollm2-135m").expanduser()
    if not folder.is_dir():
        pytest.skip(f"no {folder}: needs SmolLM2-135M")
    return folder


@pytest.fixture(scope="session")
def untrained_bert(tmp_path_factory) -> str:
    """Folder of a tiny BERT with random weights."""
    from tests.support import language_models

    return language_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def trained_bert(tmp_path_factory) -> str:
    """Folder of a tiny BERT that fills in the words of a few sentences."""
    from tests.support import language_models

    return language_models.bert(
        tmp_path_factory.mktemp("bert"), steps=150, words=("basil", "kuwait", "al", "-")
    )


@pytest.fixture(scope="session")
def llama(tmp_path_factory, tokenizer) -> str:
    """Folder of a tiny Llama with random weights."""
    from tests.support import language_models

    return language_models.llama(tmp_path_factory.mktemp("llama"), tokenizer)


@pytest.fixture(scope="session")
def other_llama(tmp_path_factory, tokenizer) -> str:
    """Another one."""
    from tests.support import language_models

    return language_models.llama(tmp_path_factory.mktemp("llama"), tokenizer, seed=1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A small run that is made once a session; read its folder, and make other runs beside it."""
    from tests.support.small_run import finished

    return finished(tmp_path_factory)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run tif.fit on the quickstart or on a file among the words; return stderr.

    It must exit with 2, write nothing and load no weights.
    """
    from tests.support.small_run import files
    from tif import fit
    from tif.training import run as training

    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(training, "train", lambda *_: pytest.fail("weights were loaded"))
        before = files(tmp_path)
        has_file = any(word.endswith(".yaml") and "=" not in word for word in words)
        assert fit.main(words if has_file else ["quickstart.yaml", *words]) == 2
        assert files(tmp_path) == before
        assert not (tmp_path / "runs").exists()
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err.splitlines()

    return run


@pytest.fixture
def refusal(refused):
    """Run tif.fit as `refused` does; return the only line of stderr."""

    def run(*words):
        lines = refused(*words)
        assert len(lines) == 1, lines
        return lines[0]

    return run
