import json
import re

import pytest

from tests.support.llm_server_stub import Handler, completion, sample, serving, settings, unwanted
from tif.identifiers.generative import batch_api
from tif.identifiers.generative.identify import Incomplete, label_samples


class BatchHandler(Handler):
    """The Batch API over the stub's answers: a batch is done at the second look."""

    def do_POST(self):
        stub, data = self.server.stub, self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/files"):
            assert b'name="purpose"\r\n\r\nbatch' in data
            name = f"file-{len(stub.files)}"
            stub.files[name] = re.search(rb"\r\n\r\n(\{.*\n)\r\n--", data, re.DOTALL)[1]
            self.send(
                200,
                {
                    "id": name,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 0,
                    "filename": "f",
                    "purpose": "batch",
                },
            )
        elif self.path.endswith("/batches"):
            fields = json.loads(data)
            assert (fields["endpoint"], fields["completion_window"]) == (
                "/v1/chat/completions",
                "24h",
            )
            name = f"batch-{len(stub.batches)}"
            stub.batches[name] = {"looks": 0, "input": fields["input_file_id"]}
            self.send(200, self.batch(name))
        else:
            raise AssertionError(f"a request beside the batch: {self.path}")

    def do_GET(self):
        stub, name = self.server.stub, self.path.split("/")[3]
        if self.path.endswith("/content"):
            self.send(200, stub.files[name])
            return
        stub.batches[name]["looks"] += 1
        self.send(200, self.batch(name))

    def batch(self, name):
        state, stub = self.server.stub.batches[name], self.server.stub
        done = state["looks"] > 1
        if done and "output" not in state:
            state["output"] = f"out-{name}"
            stub.files[state["output"]] = "".join(
                map(self.line, stub.files[state["input"]].decode().splitlines())
            )
        status = stub.__dict__.get("status", "completed") if done else "in_progress"
        return {
            "id": name, "object": "batch", "created_at": 0, "completion_window": "24h",
            "endpoint": "x",
            "input_file_id": state["input"], "status": status,
            "output_file_id": state.get("output"),
            "request_counts": {"completed": 0, "failed": 0, "total": 1},
        }  # fmt: skip

    def line(self, line):
        row, stub = json.loads(line), self.server.stub
        text = row["body"]["messages"][1]["content"]
        stub.bodies.append(row["body"])
        stub.seen[text] += 1
        if "fails always" in text or ("fails once" in text and stub.seen[text] == 1):
            answer = {"status_code": 500, "body": {"error": {"message": "oops"}}}
        else:
            answer = {"status_code": 200, "body": completion(stub.reply(row["body"]), stub.usage)}
        return (
            json.dumps(
                {"id": "x", "custom_id": row["custom_id"], "response": answer, "error": None}
            )
            + "\n"
        )


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(batch_api, "POLL_S", 0.01)
    with serving(BatchHandler) as stub:
        yield stub


def test_a_batch_labels_all_and_what_failed_in_it_goes_into_the_next(stub, tmp_path):
    samples = [*(sample(n) for n in range(9)), sample(9, "Number 9 fails once.")]
    labelled, report = label_samples(settings(stub, batch_api=True, votes=2), samples, tmp_path)
    assert [s.unwanted for s in labelled] == [unwanted(s) for s in samples]
    assert (report.replies, report.uncounted, report.agreement) == (20, 1, 1.0)
    prompt = len(json.dumps(stub.bodies[0], ensure_ascii=False).encode())
    assert 2000 + 0.9 * prompt < report.tokens.prompt < 2000 + 1.2 * prompt  # of what failed
    assert [len(stub.files[b["input"]].splitlines()) for b in stub.batches.values()] == [20, 1]
    assert stub.bodies[0]["response_format"]["type"] == "json_schema"
    assert label_samples(settings(stub, batch_api=True, votes=2), samples, tmp_path)[0] == labelled
    assert len(stub.batches) == 2


def test_what_never_comes_fails_and_strings_that_are_not_there_are_asked_for_once_more(
    stub, tmp_path
):
    def answer(body):
        return '{"words": ["Nowhere"]}' if len(body["messages"]) == 2 else '{"words": ["Number"]}'

    stub.answer = answer
    samples = [sample(0), sample(1, "Number 1 fails always.")]
    with pytest.raises(
        Incomplete, match="1 samples have no answer, e.g. toy/1: the batch says"
    ) as caught:
        label_samples(settings(stub, batch_api=True), samples, tmp_path)
    assert "oops" in caught.value.report.failed["toy/1"]
    assert caught.value.samples[0].unwanted == unwanted(sample(0, "Number one"))
    assert len(stub.batches) <= 4


def test_a_killed_run_waits_for_its_batch_and_sends_none_twice(stub, tmp_path, monkeypatch):
    async def killed(*_):
        raise KeyboardInterrupt

    samples, cfg = [sample(n) for n in range(5)], settings(stub, batch_api=True)
    with monkeypatch.context() as patch:
        patch.setattr(batch_api, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            label_samples(cfg, samples, tmp_path)
    assert len(stub.batches) == 1
    with (tmp_path / "batches.jsonl").open("a") as file:
        file.write('{"batch": "cut')
    labelled, _ = label_samples(cfg, samples, tmp_path)
    assert [s.unwanted for s in labelled] == [unwanted(s) for s in samples]
    assert len(stub.batches) == 1


def test_large_corpora_go_in_portions(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_api, "MAX_REQUESTS", 4)
    label_samples(settings(stub, batch_api=True), [sample(n) for n in range(10)], tmp_path)
    assert [len(stub.files[b["input"]].splitlines()) for b in stub.batches.values()] == [4, 4, 2]


def test_a_batch_that_may_cost_too_much_is_not_sent(stub, tmp_path):
    cfg = settings(stub, batch_api=True, price_in=1.0, price_out=1.0, max_cost=0.001)
    with pytest.raises(Incomplete, match=r"identifier\.generative\.max_cost"):
        label_samples(cfg, [sample(n) for n in range(10)], tmp_path)
    assert stub.files == {}


def test_a_cancelled_batch_stops_with_one_line(stub, tmp_path):
    stub.__dict__["status"] = "cancelled"
    with pytest.raises(
        Incomplete, match=r"identifier\.generative\.batch_api: batch batch-0 cancelled"
    ):
        label_samples(
            settings(stub, batch_api=True), [sample(1, "Number 1 fails always.")], tmp_path
        )
    (batch,) = stub.batches.values()  # no other was sent for what failed in it
    assert batch["looks"] == 2  # the second one says that it has ended
