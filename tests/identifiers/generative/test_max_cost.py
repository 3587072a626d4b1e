"""`max_cost` against a server that bills all that it was sent, whatever it answers and says."""

import contextlib
import dataclasses
import itertools
import json
import re
import threading

import pytest

from tests.support import attacked
from tests.support.hangs import HANG
from tests.support.llm_server_stub import (
    KEY,
    Handler,
    capitals,
    completion,
    sample,
    serving,
    settings,
    text_of,
    unwanted,
)
from tif.audit import judge
from tif.config.errors import ConfigError
from tif.data.samples import Sample
from tif.identifiers.generative.identify import Incomplete, identify_by_llm, label_samples
from tif.identifiers.generative.prompts_and_replies import TokenCount, make_request
from tif.identifiers.generative.reply_cache import ReplyCache

PRICES = {"price_in": 1.0, "price_out": 2.0, "max_tokens": 64}
pytestmark = pytest.mark.usefixtures("sleeps")
CAP = 0.03  # twelve to fifteen requests at their worst
SAMPLES = [sample(n) for n in range(150)]
LIES = [
    None,
    {"prompt_tokens": 0, "completion_tokens": 0},
    {"prompt_tokens": 1, "completion_tokens": 1},
    {"prompt_tokens": 10**9, "completion_tokens": 0},
    {"prompt_tokens": 10**9, "completion_tokens": 10**9},
    {"prompt_tokens": -500, "completion_tokens": -5},
    {"prompt_tokens": 0.001, "completion_tokens": 0.001},
    {"prompt_tokens": "0", "completion_tokens": "0"},
    {"prompt_tokens": False, "completion_tokens": True},
    {"prompt_tokens": None, "completion_tokens": 10**400},
    [],
]


class Billing(Handler):
    """Bills a token for every four bytes of a prompt, and an answer for every request.

    A usable reply costs a token for every four bytes of it. Whatever else is sent, or not sent, the
    model has thought to the end of `max_tokens`; with `stub.usage` other than "true" always.
    """

    def act(self, stub, body, fault):
        limit = body.get("max_completion_tokens") or body["max_tokens"]
        prompt = sum(len(message["content"].encode()) for message in body["messages"]) // 4
        content = json.dumps({"words": capitals(text_of(body["messages"][1]["content"]))})
        is_usable = fault is None and stub.usage == "true"
        answer = len(content.encode()) // 4 if is_usable else limit
        with stub.lock:
            stub.billed += (prompt * PRICES["price_in"] + answer * PRICES["price_out"]) / 1e6
        if fault is not None:
            super().act(stub, body, fault)
            return
        usage = {"prompt_tokens": prompt, "completion_tokens": answer}
        self.send(200, completion(content, usage if stub.usage == "true" else stub.usage))


@pytest.fixture
def stub():
    with serving(Billing) as stub:
        stub.billed, stub.usage = 0.0, "true"
        yield stub


def spend(cfg, folder, samples=SAMPLES):
    """Ask until the cost limit or the end; return the report."""
    with pytest.raises(Incomplete) as caught:
        label_samples(cfg, samples, folder)
    return caught.value.report


@pytest.mark.parametrize(
    "fault", ["500", "429", "cut", "hang", "no json", "refusal", "shape", "mixed"]
)
def test_requests_that_fail_count_and_the_bill_stays_below_the_limit(stub, tmp_path, fault):
    """Every second sample meets the fault four times; the openai package's retries are billed."""
    kinds = itertools.cycle(["500", "cut", "no json", "refusal", "429"])
    for item in SAMPLES[::2]:
        names = itertools.islice(kinds, 4) if fault == "mixed" else [fault] * 4
        stub.faults[item.answer] = list(names)
    limit = 0.1 if fault == "hang" else float(HANG)
    cfg = settings(stub, **PRICES, max_cost=CAP, retries=3, timeout_s=limit)
    report = spend(cfg, tmp_path)
    assert 0 < stub.billed <= report.total_cost <= CAP


@pytest.mark.parametrize("usage", LIES, ids=range(len(LIES)))
@pytest.mark.parametrize("in_flight", [1, 16])
def test_counts_that_are_no_counts_do_not_raise_the_bill_above_the_limit(
    stub, tmp_path, usage, in_flight
):
    stub.usage = usage
    report = spend(settings(stub, **PRICES, max_cost=CAP, max_in_flight=in_flight), tmp_path)
    assert 0.1 * CAP < stub.billed <= report.total_cost <= CAP


def test_true_counts_use_the_limit_to_the_last_request_that_fits(stub, tmp_path):
    report = spend(settings(stub, **PRICES, max_cost=CAP, max_in_flight=8), tmp_path)
    assert report.total_cost == pytest.approx(stub.billed)
    assert 0.9 * CAP < stub.billed <= CAP


def test_runs_one_after_another_share_the_limit_whatever_failed_in_them(stub, tmp_path):
    stub.faults = {item.answer: ["500", "no json", "cut"] * 9 for item in SAMPLES}
    cfg = settings(stub, **PRICES, max_cost=CAP, retries=0)
    for _ in range(4):
        spend(cfg, tmp_path)
    assert 0 < stub.billed <= CAP
    sent = len(stub.bodies)
    spend(cfg, tmp_path)
    assert len(stub.bodies) == sent


def run_at_once(label, samples):
    """Label the samples in two threads, in two orders."""
    runs = [threading.Thread(target=label, args=(order,)) for order in (samples, samples[::-1])]
    for run in runs:
        run.start()
    for run in runs:
        run.join()


def test_a_request_whose_process_was_killed_counts_at_its_upper_limit(stub, tmp_path):
    cfg = settings(stub, **PRICES)
    request = make_request(cfg, sample(0), 0)
    with ReplyCache(tmp_path) as cache:
        cache.open_request(request.key, TokenCount(2000, 64))
    with (tmp_path / "answers.jsonl").open("ab") as file:
        file.write(b'{"key": "cut in the mid')
    _, report = label_samples(cfg, [sample(0)], tmp_path)
    assert report.total_cost == pytest.approx((2000 + 2 * 64) / 1e6 + stub.billed)
    assert report.cost == pytest.approx(stub.billed)


def test_two_runs_at_once_share_the_limit_and_the_replies(stub, tmp_path):
    stub.delay_s = 0.02
    cfg = settings(stub, **PRICES, max_cost=1.0, max_in_flight=2)
    run_at_once(lambda samples: label_samples(cfg, samples, tmp_path), SAMPLES[:40])
    assert 40 <= len(stub.bodies) <= 44  # those that both had under way are asked twice
    stub.billed, stub.usage = 0.0, None
    other = dataclasses.replace(cfg, max_cost=CAP, model="other")
    run_at_once(lambda samples: spend(other, tmp_path, samples), SAMPLES)
    assert 0 < stub.billed <= CAP


def test_a_server_that_was_never_reached_costs_nothing(stub, tmp_path):
    cfg = settings(stub, **PRICES, max_cost=CAP)
    nobody = dataclasses.replace(cfg, base_url="http://127.0.0.1:9/v1")
    for _ in range(3):
        assert spend(nobody, tmp_path, SAMPLES[:8]).total_cost == 0
    labelled, _ = label_samples(cfg, SAMPLES[:8], tmp_path)
    assert [s.unwanted for s in labelled] == [unwanted(s) for s in SAMPLES[:8]]


def test_a_refused_request_counts_its_prompt(stub, tmp_path):
    stub.faults = {sample(0).answer: ["429"]}
    _, report = label_samples(settings(stub, **PRICES), [sample(0)], tmp_path)
    worst = len(json.dumps(stub.bodies[0])) + 200
    assert 1.25 * 300 / 1e6 < report.cost < (worst + stub.billed * 1e6) / 1e6


def test_the_report_says_how_many_requests_count_at_their_worst(stub, tmp_path, capsys):
    stub.faults = {sample(0).answer: ["500", "500"], sample(1).answer: ["no json"]}
    identify_by_llm(settings(stub, **PRICES, retries=3), [sample(0), sample(1)], tmp_path)
    out = capsys.readouterr().out
    assert (
        "3 requests without a token count that can be true: each is counted at its upper limit"
        in out
    )


def test_the_judge_of_an_audit_stays_below_the_limit_over_all_models(stub, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub.usage = None
    inputs = attacked.inputs(attacks=["sample"])
    inputs.settings.sample.judge = "m"
    endpoint = inputs.settings.identifier.generative
    for name, value in (
        PRICES | {"base_url": stub.url, "cache": str(tmp_path), "max_cost": CAP}
    ).items():
        setattr(endpoint, name, value)
    for model in range(3):
        answers = [[f"hint {model} {number}" for number in range(40)] for _ in attacked.SAMPLES]
        with pytest.raises(ConfigError, match="max_cost"):
            judge.judge_answers(inputs, "m", attacked.SAMPLES, answers)
    assert 0 < stub.billed <= CAP


class BillingBatch(Billing):
    """The Batch API: a batch is done at once, and every line of it is billed."""

    def do_POST(self):
        stub, data = self.server.stub, self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/files"):
            stub.files["f"] = re.search(rb"\r\n\r\n(\{.*\n)\r\n--", data, re.DOTALL)[1].decode()
            self.send(200, {"id": "f"})
            return
        replies = []
        for line in stub.files["f"].splitlines():
            row = json.loads(line)
            messages = row["body"]["messages"]
            prompt, content = sum(len(m["content"].encode()) for m in messages) // 4, stub.content
            stub.billed += (prompt * PRICES["price_in"] + 64 * PRICES["price_out"]) / 1e6
            response = {"status_code": stub.status, "body": completion(content, stub.usage)}
            replies.append(json.dumps({"custom_id": row["custom_id"], "response": response}))
        stub.files["o"] = "\n".join(replies)
        stub.batches[len(stub.batches)] = self.path
        self.send(stub.created, {"id": "b", "status": "in_progress"})

    def do_GET(self):
        if self.path.endswith("/content"):
            self.send(200, self.server.stub.files["o"])
        else:
            self.send(200, {"id": "b", "status": "completed", "output_file_id": "o"})


@pytest.mark.parametrize(
    ("keys", "usage"),
    [
        ({"content": "no list"}, {"prompt_tokens": 0, "completion_tokens": 0}),
        ({"content": '{"words": ["Nowhere"]}'}, {"prompt_tokens": 1, "completion_tokens": 0}),
        ({"content": "no list"}, None),
        ({"status": 500}, None),
        ({"status": 200, "content": None}, [7]),
        ({"created": 500}, None),
    ],
    ids=str,
)  # fmt: skip
def test_batches_count_what_they_were_sent(tmp_path, keys, usage):
    with serving(BillingBatch) as stub:
        stub.__dict__ |= {
            "billed": 0.0,
            "usage": usage,
            "status": 200,
            "content": "",
            "created": 200,
        } | keys
        cfg = settings(stub, **PRICES, max_cost=CAP, batch_api=True, retries=2)
        for _ in range(5):
            with contextlib.suppress(Incomplete):
                label_samples(cfg, SAMPLES[:6], tmp_path)
        assert len(stub.batches) >= 1
        assert 0 < stub.billed <= CAP


def test_short_keys_are_no_secret_and_break_no_reply(stub, tmp_path, monkeypatch):
    """A server of one's own gets a dummy key; "a" or "content" stands in every reply."""
    for number, dummy in enumerate(("a", "content", "EMPTY", "words")):
        monkeypatch.setenv("OPENAI_API_KEY", dummy)
        item = Sample(f"s{number}", "Who?", f"EMPTY words a content {number}, said Oslo.")
        (labelled,), _ = label_samples(settings(stub), [item], tmp_path)
        assert labelled.unwanted == unwanted(item)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ('{"words": ["Oslo", "1998", ' + '"Oslo", "1998", ' * 60, "repeats itself"),
        ('{"words": ["' + "on and on " * 90, "repeats itself"),
        (
            '{"words": [' + ", ".join(f'"Place {n * n} of {n * 37 % 1001}"' for n in range(60)),
            "raise it",
        ),
        ('{"words": ["Osl', "raise it"),
    ],
)
def test_a_reply_that_is_cut_says_whether_more_tokens_would_help(stub, tmp_path, content, advice):
    with serving() as server:
        server.answer = lambda body: (200, completion(content, finish="length"))
        with pytest.raises(Incomplete) as caught:
            label_samples(settings(server), [sample(0)], tmp_path)
    reason = caught.value.report.failed["toy/0"]
    assert advice in reason
    assert "max_tokens=2048" in reason
