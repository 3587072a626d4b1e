"""Replies, caches and batches that are made to stall, fill, lie or send the texts elsewhere."""

import contextlib
import difflib
import gzip
import json
import unicodedata

import pytest

from tests.support.hangs import no_hang
from tests.support.llm_server_stub import Handler, completion, sample, serving, settings, unwanted
from tif.data.samples import Span
from tif.identifiers import string_search
from tif.identifiers.generative import batch_api, reply_cache
from tif.identifiers.generative.identify import Incomplete, estimate_cost, label_samples
from tif.identifiers.generative.prompts_and_replies import BadReply, parse_words
from tif.identifiers.string_search import find_strings

DEEP = "[" * 200_000 + "]" * 200_000


def failure(cfg, folder, samples=None):
    """Return why toy/0 has no answer; the error is one line."""
    with pytest.raises(Incomplete) as caught:
        label_samples(cfg, samples or [sample(0)], folder)
    assert "\n" not in str(caught.value)
    return caught.value.report.failed["toy/0"]


def stopped(cfg, folder):
    """Return the one line with which asking stopped."""
    with pytest.raises(Incomplete) as caught:
        label_samples(cfg, [sample(n) for n in range(4)], folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "unit",
    ['{"a', '{"words": ["a', '["[",', '["', '{"words":[', "[[", '"', '","', '["\\', "```json\n{"],
)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("So: ", ""), ("", " there")])
def test_the_parser_takes_linear_time_whatever_comes(unit, before, after):
    """Of two million characters; a try at each bracket would take ten minutes."""
    content = before + unit * (2_000_000 // len(unit)) + after
    with no_hang(), contextlib.suppress(BadReply):
        parse_words(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('Well: {"reason": "x", "words": ["a", "b"]}.', ("a", "b")),
        ('The words: ["a", "b"].', ("a", "b")),
        ('{"words": ["No"]} or\n{"words": ["\\u00d8", "a\\"b"]} bye', ("Ø", 'a"b')),
        ('{"words": ["a"], "score": NaN}', ("a",)),
        ('{"words": ["a\\u0000b"]}', ("a\0b",)),
    ],
)
def test_words_are_read(content, expected):
    assert parse_words(content) == expected


@pytest.mark.parametrize(
    "content",
    [
        '{"words": ["a"], "words": ["b"]}',  # which of them?
        'Sure: {"other": ["a"]}',
        'Sure: {"words": [["a"]]}',
        '{"result": {"words": ["a"]}}',
        'Well: {"words": ["a\\q"]}',
        'Well: {"words": ["a"',
        DEEP,
        f'{{"words": {DEEP}}}',
        "1" * 5000,
    ],
)
def test_what_is_unclear_is_no_answer(content):
    with pytest.raises(BadReply):
        parse_words(content)


def test_content_longer_than_max_tokens_allows_is_refused_unread_and_not_stored(stub, tmp_path):
    stub.answer = lambda body: json.dumps({"words": ["Oslo"] * 20_000})
    reason = failure(settings(stub, max_tokens=100), tmp_path)
    assert "3 replies, none of use: the reply has 160,011 characters, more than" in reason
    assert "max_tokens=100 allows" in reason
    assert (tmp_path / "answers.jsonl").stat().st_size < 20_000


class Flood(Handler):
    """Sends 50 MB, plain or compressed to almost nothing, and notes how much was taken."""

    def act(self, stub, body, fault):
        spaces = b" " * 50_000_000
        data = gzip.compress(spaces, 9) if stub.fault == "bomb" else spaces
        if stub.fault == "twice":
            data = gzip.compress(data)
        encoding = {"bomb": "gzip", "twice": "gzip, gzip"}.get(stub.fault, "identity")
        self.send_response(stub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.close_connection = True
        try:
            for start in range(0, len(data), 100_000):
                self.wfile.write(data[start : start + 100_000])
                stub.sent = start
        except OSError:
            stub.is_cut = True


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("fault", ["plain", "bomb", "twice"])
def test_a_reply_is_read_up_to_a_limit(fault, status, tmp_path):
    with serving(Flood) as stub:
        stub.fault, stub.status, stub.sent, stub.is_cut = fault, status, 0, False
        reason = failure(settings(stub, retries=0), tmp_path)
        stub.wait_until_left_alone()
        assert stub.sent < 20_000_000  # what the sockets hold
        assert stub.is_cut == (fault == "plain")  # compressed it is small and was sent before
    wanted = "the reply is compressed twice" if fault == "twice" else "the reply has more than"
    assert reason.startswith(wanted)
    assert (tmp_path / "answers.jsonl").stat().st_size < 1000


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -(10**9), "completion_tokens": -5},
        {"prompt_tokens": 10**12, "completion_tokens": 10**400},
        {"prompt_tokens": 1.5, "completion_tokens": "9"},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": None},
        [1, 2],
        "much",
    ],
)
def test_counts_that_cannot_be_do_not_move_the_cost_out_of_its_bounds(stub, tmp_path, usage):
    stub.usage = usage
    cfg = settings(stub, price_in=1.0, price_out=1.0, max_cost=0.1, max_tokens=64)
    samples = [sample(n) for n in range(8)]
    most = estimate_cost(cfg, samples, tmp_path).at_most
    _, report = label_samples(cfg, samples, tmp_path)
    assert 0.001 < report.cost <= most < 0.1
    estimate = estimate_cost(cfg, samples, tmp_path)
    assert estimate.paid_before == pytest.approx(report.cost)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_texts_go_to_no_other_server(stub, tmp_path, status):
    with serving() as other:
        for address in (other.url, other.url.replace("127.0.0.1", "localhost"), "https:///x", ""):
            stub.answer = (status, "", {"Location": f"{address}/chat/completions"})
            stub.answer = lambda body, answer=stub.answer: answer
            stub.texts.clear()
            line = stopped(settings(stub, max_in_flight=1), tmp_path)
            if address.endswith("/v1"):
                assert f"{stub.url} redirects to {address}/chat/completions" in line
                assert "nothing is sent; give that server as base_url if you trust it" in line
        assert other.bodies == []


def test_a_redirect_within_the_server_is_followed(stub, tmp_path):
    def answer(body):
        if len(stub.bodies) == 1:
            return 307, "", {"Location": "/v1/elsewhere"}
        return '{"words": ["Oslo0"]}'

    stub.answer = answer
    (labelled,), _ = label_samples(settings(stub), [sample(0)], tmp_path)
    assert [labelled.answer[s.start : s.end] for s in labelled.unwanted] == ["Oslo0"]


@pytest.mark.parametrize("wait", ["3600", "1e300", "inf", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_wait_stops_with_one_line_instead(stub, tmp_path, wait, sleeps):
    stub.faults, stub.retry_after = {sample(n).answer: ["429"] * 9 for n in range(4)}, wait
    line = stopped(settings(stub), tmp_path)
    assert sleeps == []
    assert line.startswith(f"identifier.generative.base_url: {stub.url} asks to wait ")
    assert "s (429: slow down), longer than 60 s; run it again after that time" in line
    assert "0 of 4 samples are done and kept" in line
    assert len(stub.bodies) <= 4


@pytest.mark.parametrize("wait", ["-5", "nan", "soon", "Fri, 31 Dec 1999 23:59:59 GMT", "0"])
def test_a_wait_that_is_none_is_the_usual_one(stub, tmp_path, wait, sleeps):
    stub.faults, stub.retry_after = {sample(0).answer: ["429"]}, wait
    labelled, _ = label_samples(settings(stub), [sample(0)], tmp_path)
    assert labelled[0].unwanted == unwanted(labelled[0])
    (usual,) = sleeps
    assert 0.375 <= usual <= 0.5  # half a second, up to a quarter less by chance


def test_a_wait_is_shown(stub, tmp_path, capsys, sleeps):
    stub.faults, stub.retry_after = {sample(n).answer: ["429"] for n in range(3)}, "12"
    label_samples(settings(stub), [sample(n) for n in range(3)], tmp_path)
    assert capsys.readouterr().out.count("asks to wait 12 s (Retry-After)") == 1
    assert sleeps == [12.0] * 3


BODIES = [
    completion([{"type": "text", "text": "no"}, 7]), completion({"words": ["a"]}), completion(7),
    {"choices": {}}, {"choices": [[]]}, {"choices": [{"message": "x"}]}, [], None, 7, "x", {},
    "<html><b>502</b></html>", 'data: {"choices": [{"delta": {"content": "x"}}]}\n\n', DEEP, "",
    '{"choices": ' + DEEP + "}", '{"a":' * 100_000, "\ud83d", '"' + "x" * 500_000,
    {"choices": [{"message": {"content": None, "tool_calls": [{"id": 1}]}}]},
    {"choices": [{"message": {"content": DEEP}}]},
    {"choices": [{"message": {"content": "\ud83d\0\x1b[31m"}, "finish_reason": {"a": 1}}]},
    {"choices": [{"message": {"content": "", "refusal": {"x": ["\x1b[2J"]}}}]},
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_reply_of_another_form_is_no_answer(stub, tmp_path, body):
    stub.answer = lambda _: (200, body)
    cfg = settings(stub)
    with no_hang():
        assert failure(cfg, tmp_path).startswith("3 replies, none of use: ")
        stub.answer = None
        (labelled,), _ = label_samples(cfg, [sample(0)], tmp_path)  # nor is the stored reply
    assert labelled.unwanted == unwanted(labelled)
    assert len(stub.bodies) == 4


def test_content_in_parts_is_joined(stub, tmp_path):
    parts = [{"type": "text", "text": '{"words": ["Os'}, {"type": "text", "text": 'lo0"]}'}]
    stub.answer = lambda _: (200, completion(parts))
    (labelled,), _ = label_samples(settings(stub), [sample(0)], tmp_path)
    assert [labelled.answer[s.start : s.end] for s in labelled.unwanted] == ["Oslo0"]


def test_a_hostile_cache_is_read_past_in_time(stub, tmp_path):
    good = {"content": '{"words": ["Number"]}', "prompt_tokens": 1, "answer_tokens": 1}
    rows = [
        good | {"key": "a", "prompt_tokens": -(10**9)},
        good | {"key": "a", "answer_tokens": 10**400},
        good | {"key": "a", "content": [1]},
        good | {"key": "a", "content": None},
        good | {"key": "a", "problem": {"x": 1}},
        good | {"key": "a", "prompt_tokens": 1.5},
        good | {"key": ["a"]},
        good | {"key": "a", "more": 1},
        good | {"key": "a", "content": '{"a' * 200_000},
        good | {"key": "a", "content": '["' * 300_000},
        [good],
        7,
    ]
    lines = [json.dumps(row) for row in rows]
    lines += [DEEP, "", "\0", '{"key": ' + DEEP + "}", '{"key": "cut']
    (tmp_path / "answers.jsonl").write_bytes(b"\xff\xfe\n" + "\n".join(lines).encode())
    cfg = settings(stub, price_in=1.0, price_out=1.0, max_cost=1.0)
    with no_hang():
        labelled, report = label_samples(cfg, [sample(0)], tmp_path)
    assert labelled[0].unwanted == unwanted(labelled[0])
    assert report.total_cost == pytest.approx((100 + 10) / 1e6)


def test_of_thousands_of_strings_that_stand_nowhere_fifty_are_compared(stub, tmp_path, monkeypatch):
    """The second question names the strings of the text, and each is compared with the missing."""
    compared, compare = [], difflib.get_close_matches

    def note(word, *arguments):
        compared.append(word)
        return compare(word, *arguments)

    monkeypatch.setattr(reply_cache.difflib, "get_close_matches", note)
    answer = " ".join(f"word{n}" for n in range(300))

    def reply(body):
        if len(body["messages"]) == 2:
            return json.dumps({"words": [f"werd{n}" for n in range(3000)]})
        assert body["messages"][3]["content"].count("werd") == 50
        return json.dumps({"words": answer.split()})

    stub.answer = reply
    (labelled,), report = label_samples(settings(stub), [sample(0, answer)], tmp_path)
    assert len(labelled.unwanted) == 300
    assert 2950 <= len(report.missing) <= 3000
    assert compared == [f"werd{n}" for n in range(50)]


def test_marks_without_end_are_not_sorted(monkeypatch):
    """NFKC compares nearly each with each, and no signal ends it."""
    lengths, normalize = [], unicodedata.normalize

    def note(form, text):
        lengths.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(string_search.unicodedata, "normalize", note)
    marks = "a" + "\u0301\u0316" * 50_000
    assert find_strings([marks, "e\u0301"], "a e\u0301") == ((Span(2, 4),), (marks,))
    assert lengths
    assert max(lengths) <= 64


class HostileBatch(Handler):
    """The Batch API, of which each step answers what the test says."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        step = "files" if self.path.endswith("/files") else "batches"
        self.answer(step, {"id": "b"})

    def do_GET(self):
        step = "content" if self.path.endswith("/content") else "look"
        self.server.stub.seen[step] += 1
        self.answer(step, {"id": "b", "status": "completed", "output_file_id": "f"})

    def answer(self, step, usual):
        self.send(200, self.server.stub.steps.get(step, usual))


@pytest.mark.parametrize(
    "steps",
    [
        {"files": []}, {"files": None}, {"files": "<html>"}, {"files": {}}, {"batches": [1]},
        {"batches": DEEP}, {"batches": {}}, {"look": []}, {"look": {"status": 7}}, {"look": DEEP},
        {"look": {"status": "failed", "errors": {"data": [7]}}},
        {"look": {"status": "failed", "errors": 7}}, {"look": {"status": "running"}},
        {"look": {"status": "completed", "output_file_id": ["f"]}},
        {"content": DEEP}, {"content": '{"custom_id": ["x"]}\n[]\n7\n{"custom_id": "x"}'},
        {"content": " " * 20_000_000},
    ],
)  # fmt: skip
def test_a_batch_of_another_form_ends_in_one_line(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(batch_api, "POLL_S", 0.01)
    monkeypatch.setattr(batch_api, "MAX_HOURS", 0.1 / 3600)
    with serving(HostileBatch) as stub:
        stub.steps = steps
        with no_hang():
            line = stopped(settings(stub, batch_api=True, retries=0), tmp_path)
        assert line.startswith("identifier.generative")
        assert stub.seen["look"] <= 10  # MAX_HOURS / POLL_S
    ledger = tmp_path / "batches.jsonl"
    assert not ledger.exists() or ledger.stat().st_size < 10_000
