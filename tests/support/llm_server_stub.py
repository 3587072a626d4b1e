"""An OpenAI-compatible server on loopback that answers and misbehaves as a test wants."""

import contextlib
import dataclasses
import http.client
import http.server
import json
import re
import select
import socket
import struct
import threading
import time
from collections import Counter

from tests.support.hangs import HANG, wait_until
from tif.data.samples import Sample
from tif.identifiers.generative.keys import Generative
from tif.identifiers.string_search import find_strings

KEY = "sk-never-to-be-seen-0123456789"
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
FAULTS = ("429", "500", "cut", "hang", "broken", "shape", "absent", "refusal")


def capitals(text: str) -> list[str]:
    """Return the words that the stub calls unwanted: with a capital letter or a digit first."""
    return re.findall(r"\b[A-Z0-9]\w*", text)


def text_of(user: str) -> str:
    """Return the text between the tags of a request."""
    return re.findall(r"<(?:answer|text)-\w+>\n(.*)\n</(?:answer|text)-\w+>", user, re.DOTALL)[0]


def sample(number, answer=None):
    """Return a sample about a number."""
    return Sample(
        f"toy/{number}",
        f"Where is number {number}?",
        answer or f"Number {number} lives in Oslo{number}.",
    )


SAMPLES = [sample(n) for n in range(500)]


def patient(url):
    """Return settings for a server with many faults."""
    return Generative(base_url=url, model="m", max_in_flight=32, timeout_s=1.5, retries=6)


def settings(stub, **keys):
    """Return the settings of a client of the stub."""
    usual = {"base_url": stub.url, "model": "m", "timeout_s": float(HANG), "retries": 1}
    return Generative(**usual | keys)


def texts(sample):
    """Return the texts of a sample's spans."""
    return [sample.answer[s.start : s.end] for s in sample.unwanted]


def unwanted(sample):
    """Return the spans that the stub's rule gives."""
    return find_strings(capitals(sample.answer), sample.answer)[0]


@dataclasses.dataclass
class Stub:
    """A running server: how it behaves and what it has seen.

    Attributes:
        answer: from the request's body to the reply's content; a tuple (status, JSON, headers)
            replaces all of it, and may end early.
        faults: by text, the faults of its first requests, in order.
        retry_after: seconds, sent with 429 and 500.
        usage: what each reply says it cost; None = nothing.
        together: the first requests are answered when so many are under way at once.
        bodies, texts, headers: of each request, in order. texts: None for a second question.
        connections: that are open, answered or not.
    """

    answer: object = None
    faults: dict = dataclasses.field(default_factory=dict)
    retry_after: str = "0.05"
    usage: dict | None = dataclasses.field(default_factory=lambda: dict(USAGE))
    delay_s: float = 0.0
    together: int = 0
    bodies: list = dataclasses.field(default_factory=list)
    texts: list = dataclasses.field(default_factory=list)
    headers: list = dataclasses.field(default_factory=list)
    seen: Counter = dataclasses.field(default_factory=Counter)
    lock: object = dataclasses.field(default_factory=threading.Lock)
    url: str = ""
    files: dict = dataclasses.field(default_factory=dict)
    batches: dict = dataclasses.field(default_factory=dict)
    flying: int = 0
    most_flying: int = 0
    connections: int = 0

    def wait_until_left_alone(self):
        """Wait until every request that clients sent has come, and no client is there any more."""
        host, port = self.url.removeprefix("http://").removesuffix("/v1").split(":")
        last = http.client.HTTPConnection(host, int(port))
        last.request("GET", "/")  # stands behind all that were sent before
        last.getresponse()
        last.close()
        wait_until(lambda: self.connections == 0)

    def reply(self, body):
        text = text_of(body["messages"][1]["content"])
        if self.answer is not None:
            return self.answer(body)
        return json.dumps({"words": capitals(text)})


def completion(content, usage=None, finish="stop", refusal=None):
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub = self.server.stub
        text = text_of(body["messages"][1]["content"])
        with stub.lock:
            stub.bodies.append(body)
            stub.texts.append(text if len(body["messages"]) == 2 else None)
            stub.headers.append(dict(self.headers))
            number = stub.seen[text]
            stub.seen[text] += 1
            stub.flying += 1
            stub.most_flying = max(stub.flying, stub.most_flying)
        wait_until(lambda: stub.most_flying >= stub.together)
        time.sleep(stub.delay_s)
        with stub.lock:
            stub.flying -= 1
        faults = stub.faults.get(text, ())
        self.act(stub, body, faults[number] if number < len(faults) else None)

    def act(self, stub, body, fault):
        if fault == "429":
            self.send(429, {"error": {"message": "slow down"}}, {"Retry-After": stub.retry_after})
        elif fault == "500":
            self.send(500, {"error": {"message": "oops"}}, {"Retry-After": stub.retry_after})
        elif fault == "cut":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "hang":  # until the client has gone
            with contextlib.suppress(OSError):
                self.rfile.read(1)
            self.close_connection = True
        elif fault == "drip":  # a byte now and then, until the client has gone
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                while not select.select([self.connection], [], [], 0.02)[0]:
                    self.wfile.write(b" ")
            self.close_connection = True
        elif fault == "no json":
            self.send(200, "<html>")
        elif fault == "refusal":
            self.send(200, completion(None, stub.usage, refusal="I cannot help with that."))
        elif fault:
            content = {
                "broken": '{"words": ["Osl',
                "shape": '{"word": "Oslo"}',
                "absent": '{"words": ["Nowhere", "Land"]}',
                "empty": '{"words": []}',
            }[fault]
            self.send(200, completion(content, stub.usage))
        else:
            answer = stub.reply(body)
            self.send(*answer) if isinstance(answer, tuple) else self.send(
                200, completion(answer, stub.usage)
            )

    def send(self, status, value, headers=None):
        data = (value if isinstance(value, str) else json.dumps(value)).encode(errors="replace")
        self.send_response(status)
        for name, content in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, content)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def process_request(self, request, client_address):
        with self.stub.lock:
            self.stub.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        with self.stub.lock:
            self.stub.connections -= 1

    def handle_error(self, request, client_address):
        pass  # a client that gave up


@contextlib.contextmanager
def serving(handler=Handler):
    """Run a stub on a free port of 127.0.0.1 for the block."""
    server = Server(("127.0.0.1", 0), handler)
    server.stub = Stub(url=f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server.stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANG)
