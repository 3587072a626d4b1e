"""The provider's Batch API: requests in one file, answered within 24 hours at a lower price.

`batches.jsonl` beside the replies lists each batch sent and each one fetched, so that a killed run
waits for its batch and sends none twice.
"""

import asyncio
import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import openai

from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative.api_client import ApiClient
from tif.identifiers.generative.keys import SECTION
from tif.identifiers.generative.prompts_and_replies import BadReply, Request, TokenCount
from tif.identifiers.generative.reply_cache import next_request
from tif.identifiers.generative.retries import ASK_AGAIN, AskingStopped
from tif.utils.files import parse_json
from tif.utils.terminal import progress_bar

POLL_S = 30.0  # between two looks at a batch
MAX_REQUESTS = 50_000  # in one batch
MAX_BYTES = 100_000_000  # in one batch; providers take 200 MB
MAX_RESULT_BYTES = 1_000_000_000  # in one file of replies
MAX_HOURS = 26.0  # for a batch; providers promise 24
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_FINAL_STATES = ("completed", "failed", "expired", "cancelled")


async def ask_in_batches(client: ApiClient, jobs: Sequence[Request]) -> None:
    """Get replies to all jobs in one batch after another, while each brings new replies.

    The first batch holds the jobs; later ones repeat unusable replies and ask the follow-ups.
    """
    requests: list[Request] = []
    try:
        for _ in range(2 + ASK_AGAIN):
            unfinished = [next_request(client.settings, job, client.cache) for job in jobs]
            requests = [request for request in unfinished if request is not None]
            usable_before = len(client.cache.words)
            client.outcome.failed = await _ask_all(client, requests) if requests else {}
            if len(client.cache.words) == usable_before:
                break
        for request in requests:
            if request.is_follow_up:
                client.cache.give_up(request.key)
    except AskingStopped as stop:
        client.outcome.stopped = str(stop)


async def _ask_all(client: ApiClient, requests: Sequence[Request]) -> dict[str, str]:
    """Get a reply to each request into the client's cache; return why requests have none, by key.

    Raises:
        AskingStopped: If the Batch API cannot be used, or the batch may cost more than max_cost.
    """
    bounds = {request.key: client.prepare(request) for request in requests}
    waiting = {request.key: request for request in requests}
    reasons: dict[str, str] = {}
    for batch, keys in _read_unfetched(_ledger_path(client)).items():
        if waiting.keys() & set(keys):
            reasons |= await _collect(client, batch, keys, waiting)
    waiting = _drop_answered(client, waiting)
    if waiting:
        client.cost_limit.check(sum((bounds[key] for key in waiting), TokenCount()))
    batches = {await _send(client, file): file for file in _make_files(client, waiting.values())}
    for batch, lines in batches.items():
        reasons |= await _collect(client, batch, lines, waiting)
    unanswered = _drop_answered(client, waiting)
    return {key: reasons.get(key, "the batch gave no answer") for key in unanswered}


def _drop_answered(client: ApiClient, requests: Mapping[str, Request]) -> dict[str, Request]:
    return {key: request for key, request in requests.items() if key not in client.cache.words}


async def _send(client: ApiClient, lines: Mapping[str, bytes]) -> str:
    """Start a batch of requests, given as lines by key; note and return its id."""
    with _errors_of_server(client, "the server's answer to a new batch"):
        content = b"".join(lines.values())
        file = await client.openai.files.create(file=("requests.jsonl", content), purpose="batch")
        for key in lines:
            client.cache.open_request(key, client.cost_limit.bounds[key])
        try:  # once: a batch that was made although its answer was lost is billed
            batch = await client.openai.with_options(max_retries=0).batches.create(
                input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h"
            )
        except openai.APIStatusError as error:
            if error.status_code < 500:
                _close_all(client, lines)
            raise
        _note(client, {"batch": batch.id, "keys": list(lines)})
        return batch.id


async def _collect(
    client: ApiClient, name: str, keys: Collection[str], requests: Mapping[str, Request]
) -> dict[str, str]:
    """Wait for a batch of keys and cache its replies; return why requests have none, by key."""
    reasons: dict[str, str] = {}
    client.http.max_bytes = min(MAX_RESULT_BYTES, client.http.reply_bytes * len(keys))
    with _errors_of_server(client, f"batch {name}"):
        batch = await _wait(client, name)
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = await client.openai.files.content(file)
            for line in content.text.split("\n"):
                reasons |= _store_reply(client, line, requests)
        _note(client, {"batch": name, "fetched": True})
        if batch.status == "failed":  # its file was refused, nothing was answered
            _close_all(client, keys)
        if batch.status in ("failed", "cancelled"):
            errors = (batch.errors and batch.errors.data) or ()
            reason = client.clean("; ".join(str(error.message) for error in errors))
            problem = f"batch {name} {batch.status} {reason}".rstrip()
            raise AskingStopped(f"{SECTION}.batch_api: {problem}")
    return reasons


def _close_all(client: ApiClient, keys: Iterable[str]) -> None:
    for key in keys:
        client.cache.close_request(key, has_arrived=True)


@contextlib.contextmanager
def _errors_of_server(client: ApiClient, subject: str) -> Iterator[None]:
    """Raise AskingStopped for what the server refuses or answers in another form."""
    try:
        yield
        return
    except AskingStopped:
        raise
    except openai.OpenAIError as error:
        explained = client.explain(error)
        if isinstance(explained, AskingStopped):
            raise explained from None
        problem = str(explained)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"{client.clean(subject)} cannot be read ({client.clean(str(error))})"
    raise AskingStopped(f"{SECTION}.batch_api: {problem}")


async def _wait(client: ApiClient, name: str) -> Any:
    """Return the batch when it has ended."""
    with progress_bar(f"batch {name}", 1) as line:
        for _ in range(round(MAX_HOURS * 3600 / POLL_S)):
            batch = await client.openai.batches.retrieve(name)
            if batch.status in _FINAL_STATES:
                return batch
            counts = batch.request_counts
            progress = f", {counts.completed}/{counts.total}" if counts else ""
            line.advance(0, batch.status + progress)
            await asyncio.sleep(POLL_S)
    problem = f"batch {name} has not ended after {MAX_HOURS:g} h; run it again to wait on"
    raise AskingStopped(f"{SECTION}.batch_api: {problem}")


def _store_reply(client: ApiClient, line: str, requests: Mapping[str, Request]) -> dict[str, str]:
    """Cache the reply in one line of a batch's result; {key: why} where there is none.

    A line of another form is skipped: its request has no answer then.
    """
    try:
        row = parse_json(line)
        request, response = requests.get(row["custom_id"]), row.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    if request is None or request.key in client.cache.words:
        return {}
    if status != 200:
        if isinstance(status, int) and 400 <= status < 500:
            client.cache.close_request(request.key, has_arrived=True)
        reason = row.get("error") or body or "no response"
        return {request.key: f"the batch says {client.clean(str(reason))}"}
    try:
        client.store(request, client.read(request, body))
    except BadReply as bad:
        return {request.key: str(bad)}
    return {}


def _make_files(client: ApiClient, requests: Iterable[Request]) -> Iterator[dict[str, bytes]]:
    """Yield the requests as lines by key, in portions that one batch may hold."""
    lines: dict[str, bytes] = {}
    size = 0
    for request in requests:
        body = texts.make_request_body(client.settings, request, client.cache.counts[request.key])
        row = {"custom_id": request.key, "method": "POST", "url": _ENDPOINT, "body": body}
        line = json.dumps(row).encode() + b"\n"
        if lines and (len(lines) == MAX_REQUESTS or size + len(line) > MAX_BYTES):
            yield lines
            lines, size = {}, 0
        lines[request.key] = line
        size += len(line)
    if lines:
        yield lines


def _ledger_path(client: ApiClient) -> Path:
    return client.cache.path.with_name("batches.jsonl")


def _note(client: ApiClient, row: dict[str, Any]) -> None:
    with _ledger_path(client).open("a", encoding="utf-8") as file:
        # The line break before the row ends a line that a kill cut.
        file.write("\n" + json.dumps(row) + "\n")


def _read_unfetched(path: Path) -> dict[str, list[str]]:
    """Return the keys of the batches that were sent and not fetched."""
    batches: dict[str, list[str]] = {}
    content = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in content.split("\n"):
        try:
            row = parse_json(line)
            name, keys = str(row["batch"]), row.get("keys")
        except (ValueError, LookupError, TypeError):  # empty, or cut by a kill
            continue
        if row.get("fetched"):
            batches.pop(name, None)
        elif isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            batches[name] = keys
    return batches
