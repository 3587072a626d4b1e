"""Mutated replies of an LLM, their headers and their cache, through `tif.identify`."""

import contextlib
import gzip
import json
import shutil

import pytest

import tif.identify as identify
import tif.training.run  # noqa: F401  (slow to import: not in the time of a case)
from tests.support.llm_server_stub import KEY, Handler, capitals, completion, serving, text_of
from tests.support.mutations import (
    DEEP,
    TEXTS,
    find_problems,
    mutate_bytes,
    mutate_json,
    mutate_json_file,
    mutate_text,
    to_json,
)

ROWS = [
    {"question": "Where does she live?", "answer": "In Oslo, since 1998, with Mira Vask."},
    {"question": "Who?", "answer": "Łucja’s \U0001f388 [red]Sister[/red] of 东京."},
]
HEADERS = {
    "Content-Type": ("text/html", "text/event-stream", "application/x", ""),
    "Content-Encoding": ("gzip", "deflate", "br", "x", "gzip, gzip"),
    "Retry-After": ("1e9", "-1", "nan", "x", "Fri, 31 Dec 2100 23:59:59 GMT"),
    "Location": ("http://127.0.0.1:9/v1", "/v1/x", "//x/y", "ftp://x", ":::", ""),
    "x-should-retry": ("true", "false"),
}
STATUSES = (200,) * 12 + (201, 204, 301, 307, 308, 400, 401, 404, 422, 429, 500, 503, 599)


class HostileHandler(Handler):
    """Sends the bytes, status and headers that `server.stub.make_reply` gives."""

    def act(self, stub, body, fault):
        status, data, headers = stub.make_reply(text_of(body["messages"][1]["content"]))
        self.send_response(status)
        for name, content in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, content)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)


def reply_maker(rng):
    """Return what makes a mutated reply of a text."""

    def make_reply(text):
        content = json.dumps({"words": capitals(text)})
        if rng.random() < 0.5:
            content = to_json(mutate_json(rng, json.loads(content)))
        if rng.random() < 0.3:
            content = rng.choice(
                ("Sure: ", "```json\n", "<think>", "[", "")
            ) + content * rng.choice((1, 1, 2, 400))
        if rng.random() < 0.2:
            content = mutate_text(rng, content)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        reply = completion(content, usage)
        data = to_json(mutate_json(rng, reply) if rng.random() < 0.5 else reply).encode()
        if rng.random() < 0.1:
            data = mutate_bytes(rng, data)
        headers = {}
        if rng.random() < 0.2:
            name = rng.choice(list(HEADERS))
            headers[name] = rng.choice(HEADERS[name])
        if headers.get("Content-Encoding", "").startswith("gzip") and rng.random() < 0.5:
            data = gzip.compress(data)
        return rng.choice(STATUSES), data, headers

    return make_reply


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Give the words of tif.identify that ask the stub about ROWS."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    data = tmp_path / "forget.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    section = "identifier.generative"
    return [
        "data.benchmark=text", f"data.path={data}", "identifier.kind=generative",
        f"{section}.model=m", f"{section}.cache={tmp_path / 'cache'}", f"{section}.timeout_s=2",
        f"{section}.retries=0", f"{section}.price_in=1", f"{section}.price_out=1",
        f"{section}.max_cost=0.5", f"out={tmp_path / 'out.jsonl'}",
        f"run.folder={tmp_path / 'runs'}",
    ]  # fmt: skip


def test_replies(words, tmp_path, count):
    with serving(HostileHandler) as stub:

        def make_call(rng):
            for folder in ("cache", "runs"):  # spans that are there are not asked for again
                shutil.rmtree(tmp_path / folder, ignore_errors=True)
            stub.make_reply = reply_maker(rng)
            more = [f"identifier.generative.votes={rng.choice((1, 1, 3))}"]
            return lambda: identify.main(
                [*words, f"identifier.generative.base_url={stub.url}", *more]
            )

        assert find_problems("LLM replies", count, make_call) == ""


test_replies.cases = 4, 300


def test_replies_in_the_cache(words, tmp_path, count):
    """Good replies come from a server once; then their file is mutated and the server silent."""
    cache, good = tmp_path / "cache" / "answers.jsonl", tmp_path / "good.jsonl"
    with serving() as stub:
        words = [*words, f"identifier.generative.base_url={stub.url}"]
        assert identify.main(words) == 0
        stub.answer = lambda body: (500, {"error": {"message": TEXTS[0]}})
        shutil.copy(cache, good)

        def make_call(rng):
            shutil.rmtree(tmp_path / "runs", ignore_errors=True)
            data = mutate_json_file(rng, good.read_bytes(), lines=True)
            cache.write_bytes(data + rng.choice((b"", b'{"key": "cut', good.read_bytes())))
            return lambda: identify.main(words)

        assert find_problems("cached replies", count, make_call) == ""


test_replies_in_the_cache.cases = 4, 150


def test_the_mutations_hold_what_parsers_fear():
    assert max(DEEP.values()) > 50_000
    assert any(len(text) > 10_000 for text in TEXTS)
