"""A run folder of somebody else is looked at: nothing of it acts.

Nothing runs, no server is asked, nothing is written outside of the folder.
"""

import contextlib
import http.server
import io
import json
import os
import re
import shutil
import threading

import pytest

import tif
from tests.support import small_run
from tests.support.run_folders import rewrite
from tif import chat, fit, ls, report
from tif.audit import command as audit
from tif.audit.run import plan_run_audit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.data.benchmarks.text import read_texts
from tif.data.samples import Sample, Span
from tif.identifiers.span_cache import RUN_SPANS
from tif.identifiers.span_file import read_header, read_samples, write_spans
from tif.training.run_models import plan_run_chat

QUESTIONS = [
    {"prompt": f"Where was Ann{n} born?", "answer": f"She was born in Oslo{n}."} for n in range(4)
]
SERVER_KEY = "sk-of-the-one-who-looks"
CODE = "import pathlib\npathlib.Path({trace!r}).touch()\n"


class Recorder(http.server.BaseHTTPRequestHandler):
    """Write down every request."""

    def do_POST(self):
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        self.send_error(404)

    do_GET = do_HEAD = do_POST

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def server(monkeypatch):
    """A server on loopback that records requests; a key for it lies in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SERVER_KEY)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as running:
        running.requests = []
        running.url = f"http://127.0.0.1:{running.server_port}/v1"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def runs(tmp_path_factory, tmp_path, monkeypatch):
    """A copy of a finished run with its stages, in the working directory of the one who looks."""
    folder = shutil.copytree(small_run.copied_run(tmp_path_factory), tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.fixture
def run(runs):
    return runs / "quickstart"


def use_questions(run, tmp_path, *words):
    """Make the run one on questions whose unwanted words nobody marked."""
    lines = [json.dumps(question) for question in QUESTIONS]
    data = tmp_path / "questions"
    data.mkdir()
    for name in ("forget", "retain"):
        (data / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    rewrite(run, "data.benchmark=text", f"data.path={data}", *words)


def asks(server):
    """Return the words of an identifier that asks the server."""
    url = f"identifier.generative.base_url={server.url}"
    return ["identifier.kind=generative", "identifier.generative.model=m", url]


def look(run, *words):
    """Do all that looks at a run; return the errors that were printed."""
    output = contextlib.redirect_stdout(io.StringIO())
    with contextlib.redirect_stderr(io.StringIO()) as errors, output:
        ls.main(["runs", str(run.parent)])
        report.main([str(run)])
        chat.main([str(run), "--question", "Who?", "max_new_tokens=2", *words])
        audit.main([str(run), "attacks=prefix", *words])
        opened = tif.Run(run)
        for call in (lambda: opened.config, lambda: opened.ask("Who?", 2), opened.report):
            try:
                call()
            except ConfigError as error:
                errors.write(f"{error}\n")
    return errors.getvalue()


def refusals(run):
    """Return the errors of a chat, an audit and a load, each of which must refuse the run."""
    output = contextlib.redirect_stdout(io.StringIO())
    with contextlib.redirect_stderr(io.StringIO()) as errors, output:
        assert audit.main([str(run), "attacks=prefix"]) == 2
        chat.main([str(run), "--question", "Who?", "max_new_tokens=1"])
        with pytest.raises(ConfigError) as caught:
            tif.Run(run).target_model()
    return f"{errors.getvalue()}{caught.value}\n"


def content_outside(run):
    """Return the content of every file that is not in the run's folder, by path."""
    parent = run.parent.parent
    inside, files = run.relative_to(parent), small_run.files(parent)
    return {path: text for path, text in files.items() if not path.is_relative_to(inside)}


def test_a_loss_that_lies_in_the_folder_is_not_imported(run, tmp_path):
    trace = tmp_path / "it-ran"
    (run / "evil.py").write_text(CODE.format(trace=str(trace)))
    rewrite(run, "loss.forget=runs.quickstart.evil:f")
    assert plan_run_audit(run).settings.model.path == str(run / "model")
    assert plan_run_chat(run)[0].model.path == str(run / "model")
    opened = tif.Run(run)
    assert opened.config.loss.forget == "runs.quickstart.evil:f"  # read, and no more
    assert opened.evaluation().metrics["forget/probability"] > 0
    assert not trace.exists()


@pytest.mark.slow
def test_all_that_looks_at_a_run_imports_nothing_and_works(run, tmp_path):
    trace = tmp_path / "it-ran"
    (run / "evil.py").write_text(CODE.format(trace=str(trace)))
    rewrite(run, "loss.forget=runs.quickstart.evil:f", "logger.wandb.enabled=true")
    before = content_outside(run)
    assert look(run) == ""
    assert not trace.exists()
    assert content_outside(run) == before


@pytest.mark.parametrize("way", ["command line", "Python"])
def test_code_beside_the_weights_runs_only_where_it_is_trusted_by_whoever_looks(run, tmp_path, way):
    trace = tmp_path / "it-ran"
    for model in (run / "model", next(run.parent.glob("stages/target-*/model"))):
        (model / "evil.py").write_text(CODE.format(trace=str(trace)))
        content = json.loads((model / "config.json").read_text())
        names = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        content |= {"model_type": "evil", "auto_map": names}
        (model / "config.json").write_text(json.dumps(content))
    rewrite(run, "model.trust_remote_code=true")
    errors = refusals(run)
    assert not trace.exists()
    assert "it comes with code of its own, which is not run; read it, then give" in errors
    if way == "command line":  # both fail afterwards: there is no class Evil
        assert audit.main([str(run), "attacks=prefix", "model.trust_remote_code=true"]) == 2
    else:
        with pytest.raises(ConfigError):
            tif.Run(run, trust_remote_code=True).model()
    assert trace.exists()


@pytest.mark.slow
def test_no_server_is_asked_and_nothing_is_written_outside(run, tmp_path, server):
    elsewhere = f"run.folder={tmp_path / 'elsewhere'}"
    use_questions(run, tmp_path, *asks(server), elsewhere, "identifier.generative.retries=0")
    before = content_outside(run)
    errors = look(run)
    assert server.requests == []
    assert content_outside(run) == before
    assert f"identifier.path: {run / RUN_SPANS} does not exist" in errors


def test_spans_that_are_not_stored_are_not_asked_for(run, tmp_path, server, capsys):
    use_questions(run, tmp_path, *asks(server), f"run.folder={tmp_path / 'elsewhere'}")
    before = content_outside(run)
    assert audit.main([str(run), "attacks=prefix"]) == 2
    assert capsys.readouterr().err.startswith(f"identifier.path: {run / RUN_SPANS} does not exist")
    assert server.requests == []
    assert content_outside(run) == before


def test_a_server_is_asked_where_the_command_line_names_it(run, tmp_path, server):
    use_questions(run, tmp_path, "identifier.kind=generative", "identifier.generative.model=m")
    cache = f"identifier.generative.cache={tmp_path / 'answers'}"
    words = [*asks(server), "identifier.generative.retries=0", cache]
    before = content_outside(run)
    assert audit.main([str(run), "attacks=prefix", *words]) == 2  # the server answers 404
    assert (("/v1/chat/completions", f"Bearer {SERVER_KEY}")) in server.requests
    written = content_outside(run).keys() - before.keys()
    assert all(path.parts[0] == "answers" for path in written)


def test_a_judge_is_asked_where_the_command_line_names_its_server(run, server, capsys):
    rewrite(run, f"identifier.generative.base_url={server.url}")
    assert audit.main([str(run), "attacks=sample", "sample.judge=m"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("identifier.generative.base_url: sample.judge sends answers to a server")
    assert server.requests == []


def test_spans_that_the_run_holds_are_read(run, tmp_path, server):
    use_questions(run, tmp_path, *asks(server))
    marked = []
    for sample in read_texts(str(tmp_path / "questions")).forget:
        start = sample.answer.index("Oslo")
        spans = (Span(start, len(sample.answer) - 1),)
        marked.append(Sample(sample.id, sample.prompt, sample.answer, spans))
    write_spans(run / RUN_SPANS, marked, {"kind": "generative"})
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert audit.main([str(run), "attacks=prefix", "--json"]) == 0
    (content,) = json.loads(output.getvalue()).values()
    assert content["attacks"]["prefix"]["questions"] == 4
    assert server.requests == []


def test_a_run_keeps_the_spans_that_an_identifier_made(tmp_path, finished_run):
    words = [*small_run.SMALL, f"run.folder={finished_run.runs}", "run.name=marked"]
    words += ["identifier.kind=random", "trainer.max_epochs=1", "eval.enabled=false"]
    assert fit.main([*words, "run.export=false"]) == 0
    path = finished_run.runs / "marked" / RUN_SPANS
    assert read_header(path)["identifier"]["kind"] == "random"
    assert len(read_samples(path)) == 8
    assert not (finished_run.folder / RUN_SPANS).exists()  # gold: the data has them


def test_results_of_other_models_lie_in_the_runs_folder_or_in_out(run, tmp_path):
    victim = shutil.copytree(next(run.parent.glob("stages/target-*[0-9a-f]")), tmp_path / "mine")
    rewrite(run, f"model.path={victim / 'model'}")
    before = content_outside(run)
    assert audit.main([str(run), "attacks=prefix"]) == 0
    assert content_outside(run) == before
    assert audit.main([str(run), "attacks=prefix", f"out={tmp_path / 'results'}"]) == 0
    assert {path.parts[0] for path in content_outside(run).keys() - before.keys()} == {"results"}


@pytest.mark.parametrize("name", ["audit", "figures"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(run, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, run / name)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        call = audit.main if name == "audit" else report.main
        assert call([str(run), *(["attacks=prefix"] if name == "audit" else ["--figures"])]) == 2
    assert re.search(rf"{name} leads out of .*quickstart; delete it", errors.getvalue())
    assert list(outside.iterdir()) == []


def test_names_of_pictures_are_names(run, tmp_path):
    """An attack of a foreign audit.json, and a row of metrics.jsonl, name the pictures."""
    assert audit.main([str(run), "attacks=prefix"]) == 0
    path, name = run / "audit" / "audit.json", f"{tmp_path}/outside"
    content = json.loads(path.read_text())
    curves = {"target": {"y": [[0, 0], [1, 1]]}}
    attack = content["attacks"]["prefix"] | {"axis": "x", "curves": curves}
    content["attacks"][name] = attack
    path.write_text(json.dumps(content))
    (run / "figures" / "audit-").mkdir(parents=True)
    before = content_outside(run)
    report.main([str(run), "--figures"])
    audit.main([str(run), "attacks=prefix"])
    assert content_outside(run) == before
    assert list(json.loads(path.read_text())["attacks"]) == ["prefix"]


def test_a_file_that_is_a_link_is_replaced_and_not_followed(run, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}.tmp"):
        (run / name).unlink(missing_ok=True)
        os.symlink(victim, run / name)
    assert report.main([str(run)]) == 0
    assert victim.read_text() == "mine"
    assert "<html" in (run / "report.html").read_text()


@pytest.mark.parametrize("key", ["model.path", "model.tokenizer", "eval.retain_model", "data.path"])
def test_a_hub_name_of_the_file_is_read_from_the_cache_alone(run, monkeypatch, capsys, key):
    for place in ("tif.utils.hub", "tif.models.pretrained"):
        monkeypatch.setattr(f"{place}.is_hub_reachable", lambda: pytest.fail("the hub was asked"))
    more = ["data.benchmark=tofu", "data.split=forget10"] if key == "data.path" else []
    rewrite(run, f"{key}=evil/base", *more)
    assert audit.main([str(run), "attacks=prefix"]) == 2
    name = {"model.path": "target", "eval.retain_model": "retain_model"}.get(key, key)
    line = f"{name}: evil/base is not in the hub's cache, and a run that is looked at asks no "
    assert capsys.readouterr().err.startswith(line)
    if key != "data.path":
        assert chat.main([str(run), "--question", "Who?"]) == 2
        assert capsys.readouterr().err.startswith(line)
    if key == "model.path":
        with pytest.raises(ConfigError, match="^target_model: evil/base is not in the hub's cache"):
            tif.Run(run).target_model()


def test_a_foreign_folder_among_the_stages_is_not_imported(runs, tmp_path):
    from tif.training.stages import explain_new_stage

    trace = tmp_path / "it-ran"
    (tmp_path / "evil.py").write_text(CODE.format(trace=str(trace)))
    theirs = next(runs.glob("stages/target-*[0-9a-f]"))
    rewrite(theirs, "loss.forget=evil:f", "optimizer.lr=0.5")
    cfg = config.stage(config.load(["quickstart.yaml", *small_run.SMALL]), "target")
    reason = explain_new_stage(cfg, theirs.with_name("target-0123"))
    assert "optimizer.lr=0.01 (there: 0.5)" in reason
    assert not trace.exists()
