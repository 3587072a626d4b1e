"""tif identify, and the span file that tif.fit makes on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tif.identify as identify
from tests.support import language_models, llm_server_stub
from tests.support.hangs import wait_until
from tests.support.small_run import SMALL
from tif import identifiers
from tif.config import load as config
from tif.data.benchmarks import read_benchmark
from tif.identifiers import span_cache, span_file
from tif.identifiers.string_search import find_strings
from tif.records import run_folder
from tif.training import plan as planning
from tif.utils import terminal

AUTHORS = [
    "data.fictitious.authors=6",
    "data.fictitious.questions_per_author=4",
    "data.fictitious.forget_share=0.34",
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_spans(*words, out="spans.jsonl"):
    assert identify.main([*AUTHORS, *words, *([f"out={out}"] if out else [])]) == 0
    return span_file.read_samples(out) if out else None


def problems(capsys, *words):
    capsys.readouterr()
    is_run = any("=" in word for word in words)
    assert identify.main(["quickstart.yaml", *words] if is_run else list(words)) == 2
    captured = capsys.readouterr()
    assert [line for line in captured.out.splitlines() if not line.startswith("preset: ")] == []
    return captured.err.splitlines()


def test_a_span_file_says_what_made_it_and_fits_the_data(capsys):
    identified = write_spans("identifier.kind=random", "identifier.random.share=0.5")
    assert "8 samples, " in capsys.readouterr().out
    assert span_file.read_header("spans.jsonl")["identifier"] == {
        "kind": "random",
        "share": 0.5,
        "seed": 0,
    }
    samples = read_benchmark(config.load(["quickstart.yaml", *AUTHORS]).data).forget
    assert span_file.attach_spans("spans.jsonl", samples) == identifiers.identify(
        config.load(
            ["quickstart.yaml", *AUTHORS, "identifier.kind=random", "identifier.random.share=0.5"]
        ).identifier,
        samples,
    )
    assert [s.id for s in identified] == [s.id for s in samples]


def test_without_out_the_file_is_where_fit_looks(capsys, llama):
    keys = ["identifier.kind=causal_lm", f"identifier.causal_lm.model={llama}", "run.folder=r"]
    write_spans(*keys, out=None)
    cfg = config.load(["quickstart.yaml", *AUTHORS, *keys])
    samples = read_benchmark(cfg.data).forget
    identifier = planning.identifier_of(cfg)
    path = span_cache.span_path(identifier, samples, cfg.data.template, Path("r/spans"))
    assert path.is_file()
    assert span_file.read_header(path)["identifier"]["template"] == cfg.data.template


def test_a_run_file_of_fit_serves_though_other_sections_are_wrong_for_fit(tmp_path):
    (tmp_path / "my.yaml").write_text(
        "data: {benchmark: fictitious}\nidentifier: {kind: none}\nloss: {beta: 1}\n"
    )
    assert identify.main(["my.yaml", "out=a.jsonl"]) == 0
    assert all(s.unwanted == () for s in span_file.read_samples("a.jsonl"))


def test_print_and_help(capsys):
    assert identify.main(["--help"]) == 0
    assert "tif identify compare" in capsys.readouterr().out
    assert identify.main(["--help", "identifier"]) == 0
    assert "identifier.masked_lm.top_k" in capsys.readouterr().out
    assert identify.main(["identifier.kind=none", "--print"]) == 0
    assert "kind: none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["identifier.kind=masked"],
            "identifier.kind: want one of all, causal_lm, contrastive, generative, gold",
        ),
        (
            ["identifier.kind=generative"],
            "identifier.generative.model: want the name of a model at api.openai.com",
        ),
        (
            [
                "identifier.kind=generative",
                "identifier.generative.model=m",
                "identifier.generative.max_cost=1",
            ],
            "identifier.generative.max_cost: needs price_in and price_out",
        ),
        (
            ["identifier.kind=causal_lm"],
            "identifier.causal_lm.model: want a causal LM that never saw the forget set",
        ),
        (
            ["identifier.kind=contrastive"],
            "identifier.contrastive.base: want a model that did not learn",
        ),
        (["identifier.random.share=1.5"], "identifier.random.share: must be <= 1, got 1.5"),
        (
            ["identifier.masked_lm.case=upper"],
            "identifier.masked_lm.case: want one of fold, exact, got 'upper'",
        ),
        (
            ["identifier.masked_lm.window_tokens=3"],
            "identifier.masked_lm.window_tokens: must be >= 16, got 3",
        ),
        (
            ["identifier.causal_lm.treshold=1"],
            "identifier.causal_lm.treshold: unknown key; did you mean identifier.c",
        ),
        (
            ["identifier.kind=masked_lm", "identifier.masked_lm.model=./no"],
            "identifier.masked_lm.model: no folder",
        ),
        (
            ["identifier.kind=none", "out=spans.txt"],
            "out: want a file name that ends in .jsonl, got spans.txt",
        ),
        (["identifier.kind=none", "out=/proc/no/a.jsonl"], "run.folder: /proc is not writable"),
        (["identifier.kind=precomputed"], "identifier.path: precomputed needs a span file"),
        (
            ["identifier.kind=precomputed", "identifier.path=no.jsonl"],
            "identifier.path: no.jsonl does not exist",
        ),
        (["data.benchmark=tofu", "data.path=null"], "data.path: tofu needs a folder"),
        (["data.benchmark=text"], "data.path: text needs a file or folder of your own ("),
        (["data.benchmark=text", "data.path=./no"], "data.path: no file or folder ./no"),
        (["data.benchmark=tofu", "data.path=./no"], "data.path: no folder ./no"),
        (["compare"], "compare: want span files (.jsonl)"),
        (["compare", "no.jsonl"], "no.jsonl: cannot read the span file"),
        (
            ["compare", "a.jsonl", "--html"],
            "--html: tif identify compare has no such option; want --json, --help",
        ),
        (["show"], "show: want one span file"),
        (["show", "no.jsonl"], "no.jsonl: cannot read the span file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, line):
    if os.geteuid() == 0 and "/proc/no/a.jsonl" in " ".join(words):
        pytest.skip("root may write everywhere")
    (actual,) = problems(capsys, *words)
    assert actual.startswith(line)


def test_compare_and_show_print_what_they_say(capsys, tokenizer, tmp_path, monkeypatch):
    write_spans("identifier.kind=gold", out="gold.jsonl")
    write_spans("identifier.kind=all", out="all.jsonl")
    capsys.readouterr()
    assert identify.main(["compare", "gold.jsonl", "all.jsonl"]) == 0
    table = capsys.readouterr().out
    assert "8 samples" in table
    assert "gold: gold" in table
    assert identify.main(["compare", "gold.jsonl", "all.jsonl", "--json"]) == 0
    by_words = json.loads(capsys.readouterr().out)
    rows = [line.split() for line in table.splitlines()]
    every = by_words["files"]["all"]
    assert ["1", "gold", f"{every['precision']:.3f}", "1.000", "1.000", "1.000"] in rows
    assert [
        "2",
        "all",
        *(f"{every[name]:.3f}" for name in ("uw_share", "precision", "recall", "f1")),
    ] in rows
    assert ["2", "all", f"{by_words['jaccard']['all']['gold']:.3f}", "1.000"] in rows
    monkeypatch.setattr(terminal.console, "width", 30)
    assert identify.main(["compare", *["gold.jsonl"] * 9]) == 0
    table = capsys.readouterr().out
    assert "…" not in table  # a narrow terminal cuts nothing,
    assert table.count("\n9  gold.jsonl (9)") == 2  # nor drops the numbers
    tokenizer.save_pretrained("tok")
    assert identify.main(["compare", "gold.jsonl", "all.jsonl", "tokenizer=tok", "--json"]) == 0
    by_tokens = json.loads(capsys.readouterr().out)
    assert by_tokens["units"] > by_words["units"]
    assert by_tokens["files"]["gold"]["f1"] == 1.0
    assert identify.main(["compare", "gold.jsonl", "tokenizer=./nowhere"]) == 2
    assert "tokenizer: no folder ./nowhere" in capsys.readouterr().err

    assert identify.main(["show", "gold.jsonl"]) == 0
    assert "[[" in capsys.readouterr().out
    assert identify.main(["show", "gold.jsonl", "--html"]) == 0
    assert "<mark>" in (tmp_path / "gold.html").read_text()


def test_the_file_is_made_once_and_again_where_something_changed(
    llama, other_llama, monkeypatch, capsys
):
    calls = []
    real = identifiers.identify
    monkeypatch.setattr(identifiers, "identify", lambda *a, **k: calls.append(1) or real(*a, **k))

    def ask(*words):
        keys = ["identifier.kind=causal_lm", f"identifier.causal_lm.model={llama}", *words]
        cfg = config.load(["quickstart.yaml", *AUTHORS, *keys])
        samples = read_benchmark(cfg.data).forget
        return span_cache.identify_once(
            cfg.identifier, samples, cfg.data.template, Path("runs/spans")
        )

    first = ask()
    assert ask() == first
    assert (
        ask("loss.beta=0.2", "identifier.random.seed=3", "identifier.tokens_per_batch=64") == first
    )
    assert len(calls) == 1
    for n, words in enumerate(
        (["identifier.causal_lm.threshold=0.5"], [f"identifier.causal_lm.model={other_llama}"],
         ["data.fictitious.seed=1"], ["data.template=T {prompt}"]), 2,
    ):  # fmt: skip
        ask(*words)
        assert len(calls) == n
    (file := Path(llama) / "config.json").touch()
    os.utime(file, (1, 1))  # another model in the same folder
    ask()
    assert len(calls) == n + 1


def test_two_that_ask_at_once_make_one_file(llama, monkeypatch):
    calls, waiting = [], []
    real, show = identifiers.identify, terminal.console.print

    def note(line, *more, **keys):
        if str(line).endswith("another process is making it, waiting"):
            waiting.append(line)
        show(line, *more, **keys)

    def slow(*args, **keys):
        calls.append(1)
        wait_until(lambda: len(waiting) == 2)
        return real(*args, **keys)

    monkeypatch.setattr(terminal.console, "print", note)
    monkeypatch.setattr(identifiers, "identify", slow)
    cfg = config.load(
        [
            "quickstart.yaml",
            *AUTHORS,
            "identifier.kind=causal_lm",
            f"identifier.causal_lm.model={llama}",
        ]
    )
    samples, results = read_benchmark(cfg.data).forget, []

    def identify_once():
        arguments = cfg.identifier, samples, cfg.data.template, Path("runs/spans")
        results.append(span_cache.identify_once(*arguments))

    threads = [threading.Thread(target=identify_once) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 1
    assert len(results) == 3
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
def test_a_killed_run_leaves_no_file_and_no_lock(tmp_path, llama):
    """SIGKILL while words are found: the next run makes the file; the lock is gone."""
    keys = [
        *AUTHORS,
        "identifier.kind=causal_lm",
        f"identifier.causal_lm.model={llama}",
        "run.folder=runs",
    ]
    code = (
        "import sys, signal, tif.identifiers.causal_lm as c\n"
        "def hang(*a):\n    print('IN', flush=True)\n    signal.pause()\n"
        "c._label = hang\nimport tif.identify as identify\nidentify.main(sys.argv[1:])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *keys], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert any("IN" in line for line in child.stdout)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert list((tmp_path / "runs" / "spans").glob("*.jsonl")) == []
    write_spans(*keys[len(AUTHORS) :])
    assert len(list((tmp_path / "runs" / "spans").glob("*.jsonl"))) == 1


def test_planning_loads_no_weights_and_tells_a_wrong_model_before_anything_is_written(
    capsys, tmp_path, llama
):
    from tif import fit

    words = [
        *SMALL,
        "run.folder=r",
        "identifier.kind=contrastive",
        f"identifier.contrastive.base={tmp_path}/no",
    ]
    assert fit.main(words) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith("identifier.contrastive.base: no folder")
    assert not (tmp_path / "r").exists()


def test_generative_writes_a_span_file_says_what_it_cost_and_asks_nothing_twice(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", llm_server_stub.KEY)
    with llm_server_stub.serving() as stub:
        keys = ["identifier.kind=generative", f"identifier.generative.base_url={stub.url}",
                "identifier.generative.model=m", "identifier.generative.price_in=1"]  # fmt: skip
        assert (
            identify.main([*AUTHORS, *keys, "identifier.generative.dry_run=true", "out=gpt.jsonl"])
            == 0
        )
        printed = capsys.readouterr().out
        assert "8 samples: 8 requests to send" in printed
        assert "cost about" in printed
        assert (stub.bodies, list(tmp_path.glob("*.jsonl"))) == ([], [])
        identified = write_spans(*keys, out="gpt.jsonl")
        assert "8 replies got" in capsys.readouterr().out
        for s in identified:
            assert s.unwanted == find_strings(llm_server_stub.capitals(s.answer), s.answer)[0] != ()
        assert span_file.read_header("gpt.jsonl")["identifier"]["model"] == "m"
        assert "price_in" not in span_file.read_header("gpt.jsonl")["identifier"]
        sent = len(stub.bodies)
        write_spans(*keys, "identifier.generative.max_in_flight=2", out="other.jsonl")
        write_spans(*keys, "run.folder=elsewhere", out="third.jsonl")  # from the kept answers
        assert len(stub.bodies) == sent
        assert span_file.read_samples("third.jsonl") == identified
        assert identify.main([*AUTHORS, *keys, "--print"]) == 0
        assert stub.headers[0]["authorization"] == f"Bearer {llm_server_stub.KEY}"
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    assert llm_server_stub.KEY not in repr((written, *capsys.readouterr()))


def test_a_server_that_is_not_there_is_one_line_and_leaves_no_span_file(capsys, tmp_path):
    keys = ["identifier.kind=generative", "identifier.generative.base_url=http://127.0.0.1:9/v1",
            "identifier.generative.model=m", "identifier.generative.retries=0"]  # fmt: skip
    assert identify.main([*AUTHORS, *keys, "out=gpt.jsonl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("identifier.generative.base_url: cannot reach http://127.0.0.1:9/v1")
    assert not list(tmp_path.rglob("gpt.jsonl"))
    assert not list((tmp_path / "runs" / "spans").glob("*.jsonl"))


def test_a_kind_that_needs_no_spans_asks_for_no_model():
    cfg = config.load(
        ["quickstart.yaml", "identifier.kind=contrastive", "identifier.contrastive.base=retain"]
    )
    assert planning.wants_spans(cfg)
    assert planning.identifier_stages(cfg) == ("target", "retain")
    cfg = config.load(
        ["quickstart.yaml", "loss.on=all", "loss.preserve=none", "identifier.kind=random"]
    )
    assert not planning.wants_spans(cfg)


def test_a_document_of_your_own_is_identified_whole_and_unlearned_in_pieces(
    tmp_path, untrained_bert
):
    from tif import fit

    book = " ".join(
        f"{sentence} 第{n}章 🚢" for n, sentence in enumerate(language_models.SENTENCES * 12)
    )
    (tmp_path / "forget.txt").write_text(book, encoding="utf-8")
    (tmp_path / "retain.txt").write_text("The sea is wide. " * 60)
    data = ["data.benchmark=text", f"data.path={tmp_path}"]
    keys = [*data, "identifier.kind=masked_lm", f"identifier.masked_lm.model={untrained_bert}"]
    assert identify.main([*keys, "out=spans.jsonl"]) == 0
    (identified,) = span_file.read_samples("spans.jsonl")
    assert (identified.prompt, identified.answer) == ("", book)
    assert identified.unwanted[-1].end > len(book) - 40  # to its end
    run = [*SMALL, *data, "identifier.kind=precomputed", "identifier.path=spans.jsonl",
           "run.folder=r", "data.max_tokens=16", "trainer.max_epochs=1", "model.path=null",
           "run.name=book"]  # fmt: skip
    assert (
        fit.main(
            [*run, "eval.enabled=false", "eval.retain_records=null", "eval.forget_quality=false"]
        )
        == 0
    )
    rows = [
        json.loads(line)
        for line in (tmp_path / "r" / "book" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["step"] > 10  # a document of its own would be one
    assert rows[-1]["train/uw_logit_change"] < 0


def test_fit_finds_a_missing_server_before_it_trains_a_stage(capsys, tmp_path):
    from tif import fit

    words = [*SMALL, "run.folder=r", "identifier.kind=generative", "identifier.generative.model=m",
             "identifier.generative.base_url=http://127.0.0.1:9/v1",
             "identifier.generative.retries=0"]  # fmt: skip
    assert fit.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("identifier.generative.base_url: cannot reach")
    assert not (tmp_path / "r" / "stages").exists()


@pytest.mark.slow
def test_fit_makes_the_spans_on_the_way_from_its_own_stages(tmp_path, capsys):
    from tif import fit

    words = [*SMALL, "run.folder=r", "identifier.kind=contrastive",
             "identifier.contrastive.base=retain", "trainer.max_epochs=1", "eval.enabled=false",
             "eval.forget_quality=false"]  # fmt: skip
    assert fit.main(words) == 0
    (file,) = (tmp_path / "r" / "spans").glob("contrastive-*.jsonl")
    head = span_file.read_header(file)["identifier"]
    assert head["model"].endswith("/model")
    assert "target-" in head["model"]
    assert "retain-" in head["base"]
    assert sum(len(s.unwanted) for s in span_file.read_samples(file)) > 0
    capsys.readouterr()
    assert fit.main(words) == 0
    assert "(made before)" in capsys.readouterr().out
    assert len(list((tmp_path / "r" / "spans").glob("*.jsonl"))) == 1
    assert (tmp_path / "r" / "quickstart-2" / run_folder.SUMMARY_FILE).is_file()
