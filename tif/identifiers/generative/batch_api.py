"""The provider's Batch API: requests in one file, answered within 24 hours at a lower price.

Called by `identify` of this folder where `identifier.generative.batch_api` is true.
`batches.jsonl` beside the replies lists each batch sent and each one fetched, so that a killed run
waits for its batch and sends none twice.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import openai

from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative.api_client import ASK_AGAIN, SECTION, ApiClient, AskingStopped
from tif.identifiers.generative.prompts_and_replies import BadReply, Request
from tif.identifiers.generative.reply_cache import next_request
from tif.utils.terminal import progress_bar

POLL_S = 30.0  # between two looks at a batch
MAX_REQUESTS = 50_000  # in one batch
MAX_BYTES = 100_000_000  # in one batch; providers take 200 MB
_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_FINAL_STATES = ("completed", "failed", "expired", "cancelled")


async def ask_in_batches(client: ApiClient, jobs: Sequence[Request]) -> None:
    """Get replies to all jobs in one batch after another, while each brings something.

    The first holds the jobs, the next ones second tries and strings that were not in their text.
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
    waiting = {request.key: request for request in requests}
    reasons: dict[str, str] = {}
    for row in _read_unfetched(_ledger_path(client)):
        if waiting.keys() & set(row["keys"]):
            reasons |= await _collect(client, row["batch"], waiting)
    waiting = _drop_answered(client, waiting)
    bounds = [texts.bound_tokens(client.settings, request) for request in waiting.values()]
    most = sum(tokens.cost(client.settings) for tokens in bounds)
    if waiting and client.cost_limit.exceeds(most):
        raise client.cost_limit.stop(most)
    batches = [await _send(client, lines) for lines in _make_files(client, waiting.values())]
    for batch in batches:
        reasons |= await _collect(client, batch, waiting)
    unanswered = _drop_answered(client, waiting)
    return {key: reasons.get(key, "the batch gave no answer") for key in unanswered}


def _drop_answered(client: ApiClient, requests: Mapping[str, Request]) -> dict[str, Request]:
    return {key: request for key, request in requests.items() if key not in client.cache.words}


async def _send(client: ApiClient, lines: Mapping[str, bytes]) -> str:
    """Start a batch of requests, given as lines by key; note and return its id."""
    try:
        content = b"".join(lines.values())
        file = await client.openai.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = await client.openai.batches.create(
            input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h"
        )
    except openai.OpenAIError as error:
        raise _stop(client, error) from None
    _note(client, {"batch": batch.id, "keys": list(lines)})
    return batch.id


async def _collect(client: ApiClient, name: str, requests: Mapping[str, Request]) -> dict[str, str]:
    """Wait for a batch and cache its replies; return why some requests have none, by key."""
    reasons: dict[str, str] = {}
    try:
        batch = await _wait(client, name)
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = await client.openai.files.content(file)
            for line in content.text.split("\n"):
                if line.strip():
                    reasons |= _store_reply(client, json.loads(line), requests)
    except openai.OpenAIError as error:
        raise _stop(client, error) from None
    except (ValueError, LookupError, TypeError) as error:
        reason = f"batch {name} cannot be read ({client.clean(str(error))})"
        raise AskingStopped(f"{SECTION}.batch_api: {reason}") from None
    _note(client, {"batch": name, "fetched": True})
    if batch.status in ("failed", "cancelled"):
        errors = (batch.errors and batch.errors.data) or ()
        reason = client.clean("; ".join(str(error.message) for error in errors))
        raise AskingStopped(f"{SECTION}.batch_api: batch {name} {batch.status} {reason}".rstrip())
    return reasons


async def _wait(client: ApiClient, name: str) -> Any:
    """Return the batch when it has ended."""
    with progress_bar(f"batch {name}", 1) as line:
        while True:
            batch = await client.openai.batches.retrieve(name)
            if batch.status in _FINAL_STATES:
                return batch
            counts = batch.request_counts
            progress = f", {counts.completed}/{counts.total}" if counts else ""
            line.advance(0, batch.status + progress)
            await asyncio.sleep(POLL_S)


def _store_reply(
    client: ApiClient, row: dict[str, Any], requests: Mapping[str, Request]
) -> dict[str, str]:
    """Cache the reply in one line of a batch's result; {key: why} where there is none."""
    request, response = requests.get(row["custom_id"]), row.get("response") or {}
    if request is None or request.key in client.cache.words:
        return {}
    if response.get("status_code") != 200:
        reason = row.get("error") or response.get("body") or "no response"
        return {request.key: f"the batch says {client.clean(str(reason))}"}
    try:
        client.store(request, client.read(request, response["body"]))
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


def _read_unfetched(path: Path) -> list[dict[str, Any]]:
    """Return the batches that were sent and not fetched."""
    batches: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            row = json.loads(line)
            batches.setdefault(row["batch"], {}).update(row)
        except (ValueError, LookupError, TypeError):  # empty, or cut by a kill
            continue
    return [row for row in batches.values() if "keys" in row and not row.get("fetched")]


def _stop(client: ApiClient, error: Exception) -> AskingStopped:
    """Return the client's line; a failed request of the Batch API itself stops everything."""
    explained = client.explain(error)
    if isinstance(explained, AskingStopped):
        return explained
    return AskingStopped(f"{SECTION}.batch_api: {explained}")
