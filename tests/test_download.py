"""tif download: what it asks the hub and GitHub for, what it says; the network is a stand-in."""

import functools
import http.server
import pathlib
import threading

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError

from tif import download
from tif.identifiers import precomputed
from tif.identifiers.precomputed import read_precomputed
from tif.utils import hub


@pytest.fixture
def requests(monkeypatch, tmp_path):
    """Calls of snapshot_download; the hub answers."""
    calls = []

    def snapshot_download(name, **keys):
        calls.append((name, keys["repo_type"], keys["local_dir"], keys["allow_patterns"]))
        return keys["local_dir"] or tmp_path / "cache" / name

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "is_hub_reachable", lambda: True)
    monkeypatch.setattr("tif.utils.hub.is_hub_reachable", lambda: True)
    monkeypatch.chdir(tmp_path)
    return calls


MODEL = download.MODEL_FILES
CALLS = [
    (["tofu"], [("locuslab/TOFU", "dataset", None)], "use data.path=locuslab/TOFU"),
    (["tofu", "to=TOFU"], [("locuslab/TOFU", "dataset", "TOFU")], "use data.path=TOFU"),
    (["muse"],
     [("muse-bench/MUSE-News", "dataset", None), ("muse-bench/MUSE-Books", "dataset", None)],
     "use data.path=muse-bench/MUSE-Books"),
    (["muse", "books"], [("muse-bench/MUSE-Books", "dataset", None)],
     "data.path=muse-bench/MUSE-Books"),
    (["retain-logs", "to=logs"], [("open-unlearning/eval", "dataset", "logs")],
     "use tofu.retain_logs=logs"),
    (["model", "org/m", "to=m"], [("org/m", "model", "m")], "use model.path=m"),
    (["model", "phi_1_5", "to=m"], [("microsoft/phi-1_5", "model", "m")], "use model.base=m"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "calls", "use"), CALLS)
def test_each_word_asks_for_its_repository_and_says_how_to_use_it(
    requests, capsys, words, calls, use
):
    assert download.main(words) == 0
    assert [(name, kind, to and str(to)) for name, kind, to, _ in requests] == calls
    assert use in capsys.readouterr().out.splitlines()[-1]


def test_no_pickled_weights_and_no_code_are_asked_for(requests):
    assert download.main(["model", "org/m"]) == 0
    patterns = requests[0][3]
    for name in ("pytorch_model.bin", "modeling_m.py", "model.ckpt", "weights.pt"):
        assert not any(pathlib.PurePath(name).match(pattern) for pattern in patterns)
    for name in (
        "model-00001-of-00002.safetensors",
        "tokenizer.model",
        "chat_template.jinja",
        "vocab.json",
    ):
        assert any(pathlib.PurePath(name).match(pattern) for pattern in patterns)


@pytest.mark.parametrize(("word", "pattern"), [
    ([], "tofu_*_retain*/TOFU_EVAL.json"),
    (["llama_3_2_1b"], "tofu_Llama-3.2-1B-Instruct_retain*/TOFU_EVAL.json"),
    (["Llama-3.2-1B-Instruct"], "tofu_Llama-3.2-1B-Instruct_retain*/TOFU_EVAL.json"),
])  # fmt: skip
def test_logs_of_retain_models_are_asked_for_by_model(requests, word, pattern):
    assert download.main(["retain-logs", *word]) == 0
    assert requests[0][3] == [pattern]


def test_run_asks_for_all_that_the_run_would_read(requests, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(precomputed, "download_masks", fetched.append)
    assert download.main(["run", "tofu.yaml", "model=llama_3_2_3b", "data.split=forget05"]) == 0
    name = "tofu_Llama-3.2-3B-Instruct"
    assert [(repository, patterns) for repository, _, _, patterns in requests] == [
        ("locuslab/TOFU", None),
        ("open-unlearning/eval", [f"{name}_retain95/TOFU_EVAL.json"]),
        (f"open-unlearning/{name}_full", MODEL),
    ]
    assert fetched == [precomputed.cache_folder()]


@pytest.mark.parametrize(("words", "line"), [
    (["modle", "x"],
     "modle: want one of tofu, muse, masks, retain-logs, model, run; did you mean model?"),
    (["model", "smolm2_135m"],
     "model smolm2_135m: want a hub name (org/model) or one of gemma_2_2b"),
    (["muse", "newz"], "muse newz: want muse as in --help, got 'newz'"),
    (["muse", "to=x"], "to: muse is two data sets; want muse news to=... or muse books to="),
])  # fmt: skip
def test_wrong_words_are_one_line(requests, capsys, words, line):
    assert download.main(words) == 2
    (actual,) = capsys.readouterr().err.splitlines()
    assert actual.startswith(line)
    assert requests == []


def test_a_gated_model_and_a_lost_network_are_one_line_each(requests, monkeypatch, capsys):
    import httpx

    answer = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))

    def refuse(name, **keys):
        raise GatedRepoError("Access to it is restricted.\nAsk", response=answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert download.main(["model", "org/m"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("accept its licence on huggingface.co and log in (`hf auth login`)")
    monkeypatch.setattr(download, "is_hub_reachable", lambda: False)
    assert download.main(["model", "org/m"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("https://huggingface.co does not answer; ")


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word on stderr."""

    def log_message(self, *words):
        pass


@pytest.fixture
def github(shared):
    """The address of a server that has the authors' masks, and the paths that it was asked for."""
    paths = []

    class Recorder(Server):
        def do_GET(self):  # noqa: N802
            paths.append(self.path)
            super().do_GET()

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Recorder, directory=shared / "tofu_masks")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


@pytest.mark.real
def test_masks_are_fetched_once_checked_and_found_by_the_repositorys_name(
    github, tmp_path, monkeypatch
):
    address, paths = github
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = precomputed.cache_folder()
    precomputed.download_masks(folder, address=address)
    assert len(paths) == 18
    (folder / "forget01_with_common_words_gpt" / "state.json").write_text("cut")
    precomputed.download_masks(folder, address=address)
    assert paths[18:] == ["/forget01_with_common_words_gpt/state.json"]
    name = pathlib.Path(precomputed.REPOSITORY) / "forget01_with_common_words_gpt"
    assert precomputed.find_masks(name) == folder / "forget01_with_common_words_gpt"
    with pytest.raises(ValueError, match="has 40 rows, the forget set has 0 samples"):
        read_precomputed(name, (), "complement")


@pytest.mark.real
def test_another_content_than_the_authors_is_refused(github, tmp_path, monkeypatch):
    address, _ = github
    checksums = dict.fromkeys(precomputed.read_checksums(), "0" * 64)
    monkeypatch.setattr(precomputed, "read_checksums", lambda: checksums)
    with pytest.raises(OSError, match="is not the file that the authors published"):
        precomputed.download_masks(tmp_path, address=address)
    assert list(tmp_path.iterdir()) == []


def test_masks_that_are_not_here_are_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = f"{precomputed.REPOSITORY}/forget01_with_common_words_gpt"
    with pytest.raises(ValueError, match="identifier.path: ") as caught:
        read_precomputed(path, (), "complement")
    assert str(caught.value) == (
        f"identifier.path: {path} is no folder here and not in {precomputed.cache_folder()}: "
        "HF_HUB_OFFLINE is set; where there is a network: tif download masks"
    )
    with pytest.raises(ValueError, match="the authors have no masks of that name"):
        read_precomputed(f"{precomputed.REPOSITORY}/forget02", (), "complement")


def test_a_path_of_ones_own_is_never_taken_for_one_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for path in ("a/b", "./c/d", "/c/d", "~/c", "c", "a" * 300):
        assert not hub.can_be_hub_path(path)
    assert hub.can_be_hub_path("org/model")
    assert hub.find_data_file("runs/x/eval") == pathlib.Path("runs/x/eval")
