"""What a server may do to the client: fail, hang, lie, ignore schemas, repeat the key."""

import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import signal
import subprocess
import sys
import traceback

import pytest

from tests.support.hangs import HANG, no_hang, wait_until
from tests.support.llm_server_stub import (
    FAULTS,
    KEY,
    SAMPLES,
    completion,
    patient,
    sample,
    settings,
    texts,
    unwanted,
)
from tif.identifiers.generative import retries
from tif.identifiers.generative.identify import Incomplete, identify_by_llm, label_samples
from tif.identifiers.generative.keys import Generative
from tif.identifiers.generative.prompts_and_replies import make_request
from tif.identifiers.generative.reply_cache import ReplyCache


def killed_half_way(stub, folder):
    """Label SAMPLES in a process of its own that gets SIGKILL; the texts that it had answers to."""
    code = (
        "import sys, pathlib\n"
        "from tests.support.llm_server_stub import SAMPLES, patient\n"
        "from tif.identifiers.generative.identify import label_samples\n"
        "label_samples(patient(sys.argv[1]), SAMPLES, pathlib.Path(sys.argv[2]))"
    )
    root = pathlib.Path(__file__).parents[3]
    run = subprocess.Popen([sys.executable, "-c", code, stub.url, str(folder)], cwd=root)
    wait_until(lambda: len(stub.texts) >= 300 or run.poll() is not None)
    run.send_signal(signal.SIGKILL)
    assert run.wait(HANG) == -signal.SIGKILL
    stub.wait_until_left_alone()
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(b'{"key": "cut in the mid')  # the worst place
    with ReplyCache(folder) as cache:
        return {
            s.answer for s in SAMPLES if make_request(patient(stub.url), s, 0).key in cache.words
        }


@pytest.mark.slow
def test_500_samples_a_faulty_server_and_a_kill_lose_and_double_nothing(stub, tmp_path):
    kinds = itertools.cycle(FAULTS)
    for n, item in enumerate(
        SAMPLES[::3] + SAMPLES[1::30]
    ):  # 30 % of the requests; some samples meet two faults
        stub.faults.setdefault(item.answer, []).extend(next(kinds) for _ in range(1 + (n % 5 == 0)))
    stub.delay_s = 0.02
    had = killed_half_way(stub, tmp_path)
    sent = len(stub.texts)
    assert 100 < len(had) <= sent < 500

    cfg = patient(stub.url)
    labelled, report = label_samples(cfg, SAMPLES, tmp_path)
    assert (
        set(filter(None, stub.texts[sent:])) == {s.answer for s in SAMPLES} - had
    )  # nothing that it had
    assert report.cached == len(had)
    assert [s.id for s in labelled] == [s.id for s in SAMPLES]
    # "absent" is a reply: its words are asked for once more, and the second reply is right
    assert [s.unwanted for s in labelled] == [unwanted(s) for s in SAMPLES]
    assert report.empty == ()
    assert {name for name, _ in report.missing} <= {
        s.id for s in SAMPLES if "absent" in stub.faults.get(s.answer, ())
    }
    assert 0.25 < sum(map(len, stub.faults.values())) / len(stub.bodies) < 0.35

    rows = [
        json.loads(line)
        for line in (tmp_path / "answers.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    keys = {make_request(cfg, s, 0).key for s in SAMPLES}
    usable = [row["key"] for row in rows if row["key"] in keys and row["content"].endswith("]}")]
    assert sorted(usable) == sorted(keys)  # each answered once
    sent = len(stub.bodies)
    repeated, report = label_samples(cfg, SAMPLES, tmp_path)
    assert repeated == labelled
    assert (len(stub.bodies), report.replies, report.cached) == (sent, 0, 500)


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(stub, tmp_path, sleeps):
    sleeps_before = []  # each request that is answered

    def answer(body):
        sleeps_before.append(list(sleeps))
        return '{"words": ["Oslo0"]}'

    stub.faults, stub.retry_after = {sample(0).answer: ["429"]}, "1.5"
    stub.answer = answer
    label_samples(settings(stub), [sample(0)], tmp_path)
    assert len(stub.bodies) == 2
    assert sleeps_before == [[1.5]]  # of its own accord the client waits half a second


def test_no_more_requests_are_under_way_than_allowed(stub, tmp_path):
    stub.together, stub.delay_s = 3, 0.02
    label_samples(settings(stub, max_in_flight=3), [sample(n) for n in range(20)], tmp_path)
    assert stub.most_flying == 3


def test_a_server_that_ignores_schemas_is_read_all_the_same(stub, tmp_path):
    stub.answer = lambda body: (
        '<think>["x"]?</think> Sure!\n```json\n{"words": ["Oslo"]}\n```\nShall I go on?'
    )
    (labelled,), _ = label_samples(settings(stub), [sample(0, "x in Oslo")], tmp_path)
    assert texts(labelled) == ["Oslo"]
    assert len(stub.bodies) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_schemas_is_asked_plainly_from_then_on(stub, tmp_path, status):
    def answer(body):
        if "response_format" in body or "max_completion_tokens" in body:
            return status, {"error": {"message": "response_format is not supported"}}
        return 'Sure!\n```json\n{"words": ["Oslo"]}\n```\nDone.'

    stub.answer = answer
    samples = [sample(n, f"Oslo {n}") for n in range(5)]
    labelled, _ = label_samples(settings(stub, max_in_flight=1), samples, tmp_path)
    assert [texts(s) for s in labelled] == [["Oslo"]] * 5
    assert ["response_format" in body for body in stub.bodies] == [True] + [False] * 5
    assert stub.bodies[1]["max_tokens"] == 2048


def test_a_sample_without_a_usable_reply_fails_and_the_rest_is_kept(stub, tmp_path, capsys):
    samples = [sample(n) for n in range(6)]
    stub.faults = {
        samples[1].answer: ["refusal"] * 9,
        samples[4].answer: ["broken"] * 9,
        samples[5].answer: ["500"] * 9,
    }
    with pytest.raises(Incomplete, match="3 samples have no answer, e.g. toy/1") as caught:
        identify_by_llm(settings(stub), samples, tmp_path)
    assert "\n" not in str(caught.value)
    assert [s.unwanted is None for s in caught.value.samples] == [
        False,
        True,
        False,
        False,
        True,
        True,
    ]
    failed = caught.value.report.failed
    assert "3 replies, none of use: the model refused (I cannot help with that.)" in failed["toy/1"]
    assert "no JSON" in failed["toy/4"]
    assert failed["toy/5"] == "the server answers 500: oops"
    assert (
        "1 samples have no answer: the server answers 500: oops: toy/5" in capsys.readouterr().out
    )
    stub.faults, sent = {}, len(stub.bodies)
    labelled, report = label_samples(settings(stub), samples, tmp_path)
    assert len(stub.bodies) - sent == report.replies == 3
    assert [s.unwanted for s in labelled] == [unwanted(s) for s in samples]


@pytest.mark.parametrize(
    ("fault", "limit", "requests", "reason"),
    [
        ("hang", 0.1, 2, "no complete answer within 0.1 s, asked 2 times"),
        ("drip", 0.1, 2, "no complete answer within 0.1 s, asked 2 times"),
        ("cut", HANG, 2, "the connection was lost, 2 times"),
        ("no json", HANG, 3, "no chat completion came back"),
    ],
)
@pytest.mark.usefixtures("sleeps")
def test_a_request_ends_in_time_and_says_why(stub, tmp_path, fault, limit, requests, reason):
    """The server never ends an answer of itself; the client gives up, and leaves it."""
    stub.faults = {sample(0).answer: [fault] * 9}
    with pytest.raises(Incomplete) as caught, no_hang():
        label_samples(settings(stub, timeout_s=float(limit)), [sample(0)], tmp_path)
    assert reason in caught.value.report.failed["toy/0"]
    assert len(stub.bodies) == requests
    stub.wait_until_left_alone()


def message(cfg, path, samples=None):
    """What `label` says; always one line."""
    with pytest.raises(ValueError, match="identifier") as caught:
        label_samples(cfg, samples or [sample(n) for n in range(4)], path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_makes_asking_useless_stops_it_with_one_line(stub, tmp_path):
    stub.answer = lambda body: (404, {"error": {"message": "The model `m` does not exist"}})
    assert "identifier.generative.model: " in (error := message(settings(stub), tmp_path))
    assert "has no model 'm' (404: " in error
    stub.answer = lambda body: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    error = message(settings(stub), tmp_path)
    assert error.startswith(
        f"identifier.generative.base_url: {stub.url} refuses the key in OPENAI_API_KEY (401)"
    )
    nobody = settings(stub, base_url="http://127.0.0.1:9/v1", retries=0)
    assert message(nobody, tmp_path).startswith(
        "identifier.generative.base_url: cannot reach http://127.0.0.1:9/v1"
    )


def test_a_server_that_fails_always_is_left_alone(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "GIVE_UP", 5)
    stub.answer = lambda body: (400, {"error": {"message": "no such parameter"}})
    error = message(settings(stub, max_in_flight=2), tmp_path, [sample(n) for n in range(40)])
    assert "the last 5 requests all failed: the server answers 400: no such parameter" in error
    assert "0 of 40 samples are done" in error
    assert len(stub.bodies) < 20


def test_the_key_comes_from_the_environment_and_is_seen_nowhere(
    stub, tmp_path, caplog, capsys, monkeypatch
):
    echo = {"error": {"message": f"bad key {KEY}, you sent Authorization: Bearer {KEY}"}}
    seen = []
    with caplog.at_level(logging.DEBUG):
        for status in (None, 400, 401, 404, 500):
            stub.answer = (lambda s: lambda body: (s, echo))(status) if status else None
            samples = [sample(f"{status}{n}") for n in range(2)]
            try:
                seen += identify_by_llm(settings(stub, retries=0), samples, tmp_path)
            except ValueError as error:
                seen += [*traceback.format_exception(error), repr(vars(error))]
        for content in (
            {"detail": KEY},
            completion(f'{{"words": ["{KEY}", "Oslo"]}}'),
            completion("", refusal=KEY),
        ):
            stub.answer = lambda body, content=content: (200, content)
            with contextlib.suppress(Incomplete):
                seen += label_samples(settings(stub), [sample(99)], tmp_path)
    assert stub.headers[0]["authorization"] == f"Bearer {KEY}"
    seen += [caplog.text, *capsys.readouterr(), repr(dataclasses.asdict(settings(stub)))]
    seen += [path.read_text() for path in tmp_path.iterdir()]
    assert len(seen) > 8
    assert KEY not in repr(seen)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-käse\nx")
    with pytest.raises(
        ValueError, match="OPENAI_API_KEY holds characters that no key has"
    ) as caught:
        label_samples(settings(stub), [sample(98)], tmp_path)
    assert "käse" not in "".join(traceback.format_exception(caught.value))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="set the environment variable OPENAI_API_KEY"):
        label_samples(Generative(model="m"), [sample(98)], tmp_path)
    stub.answer = None
    label_samples(settings(stub), [sample(100)], tmp_path)  # a local server needs none
