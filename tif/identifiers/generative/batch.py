"""The provider's Batch API: all requests in one file, answered within 24 hours at a lower price.

`batches.jsonl` beside the answers remembers each batch sent, so that a killed run waits for its batch and sends none
twice.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai

from tif.identifiers.generative.client import SECTION, Client, Failed, Stop
from tif.identifiers.generative.requests import BadAnswer, Request, body, most_tokens
from tif.utils.terminal import progress_bar

POLL_S = 30.0
MOST_REQUESTS, MOST_BYTES = 50_000, 100_000_000  # of one batch; providers take 200 MB
_FINAL = ("completed", "failed", "expired", "cancelled")


async def ask_all(client: Client, requests: Sequence[Request]) -> dict[str, str]:
    """Get an answer to each request into the client's answers.

    Returns:
        Why requests have none, by request key.

    Raises:
        Stop: If the Batch API cannot be used, or the batch may cost more than max_cost.
    """
    waiting = {request.key: request for request in requests}
    reasons: dict[str, str] = {}
    for row in _under_way(_ledger(client)):
        if waiting.keys() & set(row["keys"]):
            reasons |= await _collect(client, row["batch"], waiting)
    waiting = {key: request for key, request in waiting.items() if key not in client.answers.words}
    if waiting and client.cfg.max_cost is not None:
        most = sum(client.cfg.cost(*most_tokens(client.cfg, request)) for request in waiting.values())
        if client.spent + most > client.cfg.max_cost:
            raise client.over_budget(most)
    batches = [await _send(client, lines) for lines in _files(client, waiting.values())]
    for batch in batches:
        reasons |= await _collect(client, batch, waiting)
    return {key: reasons.get(key, "the batch gave no answer") for key in waiting if key not in client.answers.words}


async def _send(client: Client, lines: Mapping[str, bytes]) -> str:
    """Start a batch of requests, given as lines by key, and note it."""
    try:
        content = b"".join(lines.values())
        file = await client.openai.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = await client.openai.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    except openai.OpenAIError as error:
        raise _stop(client, error) from None
    _note(client, {"batch": batch.id, "keys": list(lines)})
    return batch.id


async def _collect(client: Client, batch_id: str, requests: Mapping[str, Request]) -> dict[str, str]:
    """Wait for a batch, keep its answers, and say why some requests have none."""
    reasons: dict[str, str] = {}
    try:
        batch = await _finished(client, batch_id)
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            content = await client.openai.files.content(file)
            for line in content.text.split("\n"):
                if line.strip():
                    reasons |= _keep(client, json.loads(line), requests)
    except openai.OpenAIError as error:
        raise _stop(client, error) from None
    except (ValueError, LookupError, TypeError) as error:
        raise Stop(f"{SECTION}.batch_api: batch {batch_id} cannot be read ({client.clean(str(error))})") from None
    _note(client, {"batch": batch_id, "fetched": True})
    if batch.status in ("failed", "cancelled"):
        told = "; ".join(str(error.message) for error in (batch.errors and batch.errors.data) or ())
        raise Stop(f"{SECTION}.batch_api: batch {batch_id} {batch.status} {client.clean(told)}".rstrip())
    return reasons


async def _finished(client: Client, batch_id: str) -> Any:
    with progress_bar(f"batch {batch_id}", 1) as line:
        while True:
            batch = await client.openai.batches.retrieve(batch_id)
            if batch.status in _FINAL:
                return batch
            counts = batch.request_counts
            line.advance(0, f"{batch.status}, {counts.completed}/{counts.total}" if counts else batch.status)
            await asyncio.sleep(POLL_S)


def _keep(client: Client, row: dict[str, Any], requests: Mapping[str, Request]) -> dict[str, str]:
    """Keep the answer in one line of a batch's result; {key: why} where there is none."""
    request, response = requests.get(row["custom_id"]), row.get("response") or {}
    if request is None or request.key in client.answers.words:
        return {}
    if response.get("status_code") != 200:
        why = row.get("error") or response.get("body") or "no response"
        return {request.key: f"the batch says {client.clean(str(why))}"}
    try:
        client.keep(request, client.read(request, response["body"]))
    except BadAnswer as bad:
        return {request.key: str(bad)}
    return {}


def _files(client: Client, requests: Iterable[Request]) -> Iterator[dict[str, bytes]]:
    """The requests as lines by key, in portions that one batch may hold."""
    lines: dict[str, bytes] = {}
    size = 0
    for request in requests:
        row = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions"}
        line = (
            json.dumps(row | {"body": body(client.cfg, request, client.answers.replies[request.key])}).encode() + b"\n"
        )
        if lines and (len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield lines
            lines, size = {}, 0
        lines[request.key] = line
        size += len(line)
    if lines:
        yield lines


def _ledger(client: Client) -> Path:
    return client.answers.path.with_name("batches.jsonl")


def _note(client: Client, row: dict[str, Any]) -> None:
    with _ledger(client).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row) + "\n")  # the line break before it ends a line that a kill cut


def _under_way(path: Path) -> list[dict[str, Any]]:
    """The batches sent and not fetched."""
    sent: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            row = json.loads(line)
            sent.setdefault(row["batch"], {}).update(row)
        except (ValueError, LookupError, TypeError):
            continue
    return [row for row in sent.values() if "keys" in row and not row.get("fetched")]


def _stop(client: Client, error: Exception) -> Stop:
    found = client.explained(error)
    return Stop(f"{SECTION}.batch_api: {found}") if isinstance(found, Failed) else found
