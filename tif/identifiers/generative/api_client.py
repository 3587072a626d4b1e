"""Send requests to an OpenAI-compatible API, several at once; `batch_api` uses the same client.

Added to the `openai` package: another seed after an unusable reply, an end when no request can
succeed any more, and errors of one line that never show the API key. `retries` has the numbers of
tries, `http_client` the limits.
"""

import asyncio
import collections
import json
import os
import urllib.parse
from collections.abc import Sequence
from typing import Any

import openai

from tif.identifiers.generative import prompts_and_replies as texts
from tif.identifiers.generative import retries
from tif.identifiers.generative.http_client import (
    KEY_HEADER,
    CostLimit,
    LimitedClient,
    ReplyTooLong,
)
from tif.identifiers.generative.keys import OPENAI, SECTION, Generative
from tif.identifiers.generative.prompts_and_replies import BadReply, Reply, Request, TokenCount
from tif.identifiers.generative.reply_cache import ReplyCache, next_request
from tif.identifiers.generative.retries import AskingStopped, NoRoom, NoUsableReply, RequestFailed
from tif.utils.terminal import Bar, progress_bar

SHORTEST_SECRET = 16  # characters; shorter keys are dummies, and may stand in any reply
_SCHEMA_REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)


class ApiClient:
    """Asks one request at a time for each caller, and caches each reply.

    Attributes:
        outcome: replies and failures of this run.
        failures: requests that failed one after the other.
        workers: that ask at the same time.
    """

    def __init__(self, settings: Generative, cache: ReplyCache) -> None:
        self.settings, self.cache = settings, cache
        self.cost_limit, self.outcome = CostLimit(settings, cache), texts.Outcome()
        key = read_key(settings)  # "" where there is none
        self._secret = key if len(key) >= SHORTEST_SECRET else ""
        self._is_plain = False  # the server refuses schemas
        self.failures = self.workers = 0
        self.http = LimitedClient(settings, self.cost_limit)
        self.openai = openai.AsyncOpenAI(
            api_key=key or "none", base_url=settings.base_url, timeout=settings.timeout_s,
            max_retries=settings.retries, http_client=self.http,
        )  # fmt: skip

    async def ask(self, request: Request) -> None:
        """Get a usable reply into the cache.

        Raises:
            RequestFailed: If no reply came (NoUsableReply: if all were unusable).
            AskingStopped: If no request can succeed any more.
        """
        problem = ""
        self.prepare(request)
        for _ in range(1 + retries.ASK_AGAIN):
            try:
                self.store(request, await self._send(request, self.cache.counts[request.key]))
                return
            except BadReply as bad:
                problem = str(bad)
        raise NoUsableReply(f"{1 + retries.ASK_AGAIN} replies, none of use: {problem}")

    def prepare(self, request: Request) -> TokenCount:
        """Count what a request costs from now on; return the most tokens that it can take."""
        self.cache.watch(request.key)
        bound = texts.bound_tokens(self.settings, request)
        self.cost_limit.bounds[request.key] = bound
        return bound

    def store(self, request: Request, reply: Reply) -> None:
        """Count and cache a reply; raise BadReply if it cannot be used."""
        self.outcome.replies += 1
        is_counted = reply.tokens.prompt < self.cost_limit.bounds[request.key].prompt
        self.outcome.uncounted += not is_counted
        self.cache.add(request.key, reply)

    async def _send(self, request: Request, attempt: int) -> Reply:
        """Return one reply. A server that refuses schemas (400, 422) gets none from then on."""
        refusal: openai.APIStatusError | None = None
        if not self._is_plain:
            try:
                return await self._post(request, attempt, is_plain=False)
            except _SCHEMA_REFUSED as error:
                refusal = error
        try:
            reply = await self._post(request, attempt, is_plain=True)
        except _SCHEMA_REFUSED as error:
            raise self.explain(refusal or error) from None
        self._is_plain = True
        return reply

    async def _post(self, request: Request, attempt: int, is_plain: bool) -> Reply:
        body = texts.make_request_body(self.settings, request, attempt, is_plain)
        try:
            completion = await self.openai.post(
                "/chat/completions", body=body, cast_to=object,
                options={"headers": {KEY_HEADER: request.key}},
            )  # fmt: skip
            return self.read(request, completion)
        except (AskingStopped, *_SCHEMA_REFUSED):
            raise
        except (openai.APIResponseValidationError, ValueError, RecursionError):
            return self.read(request, "a body that is no JSON")
        except openai.OpenAIError as error:
            raise self.explain(error) from None

    def read(self, request: Request, completion: Any) -> Reply:
        """Return the reply in a chat completion's JSON, without the key if a server echoes it."""
        content = json.dumps(completion)
        if self._secret and self._secret in content:
            completion = json.loads(content.replace(self._secret, "***"))
        return texts.read_completion(self.settings, request, completion)

    def explain(self, error: Exception) -> AskingStopped | RequestFailed:
        """Return an error of the openai package as one line without the key."""
        cause, tries = error.__cause__, 1 + self.settings.retries
        if isinstance(cause, AskingStopped):
            return cause
        if isinstance(error, openai.APIStatusError):
            return self._explain_status(error)
        if isinstance(error, openai.APITimeoutError):
            limit = f"{self.settings.timeout_s:g} s"
            return RequestFailed(f"no complete answer within {limit}, asked {tries} times")
        if type(cause).__name__ == "ConnectError":
            reason = f"cannot reach {self.settings.base_url} ({self.clean(str(cause))})"
            return AskingStopped(f"{SECTION}.base_url: {reason}")
        if isinstance(error, openai.APIConnectionError):
            return RequestFailed(f"the connection was lost, {tries} times")
        if isinstance(error, ReplyTooLong):
            return RequestFailed(str(error))
        return RequestFailed(f"{type(error).__name__}: {self.clean(str(error))}")

    def _explain_status(self, error: openai.APIStatusError) -> AskingStopped | RequestFailed:
        url, headers, code = self.settings.base_url, error.response.headers, error.status_code
        body = error.body.get("message") if isinstance(error.body, dict) else error.body
        message = self.clean(str(body or error.message))
        wait = retries.read_wait(headers)
        if code in (401, 403):  # the server's own words may quote the key
            reason = f"base_url: {url} refuses the key in OPENAI_API_KEY ({code})"
        elif code == 404:
            reason = (
                f"model: {url} has no model {self.settings.model!r} (404: {message}); check "
                "model, and base_url, which mostly ends in /v1"
            )
        elif 300 <= code < 400:
            place = self.clean(urllib.parse.urljoin(f"{url}/", headers.get("location", "")))
            reason = (
                f"base_url: {url} redirects to {place}, where nothing is sent; give that server "
                "as base_url if you trust it"
            )
        elif wait > retries.MAX_WAIT_S:
            reason = (
                f"base_url: {url} asks to wait {wait:.0f} s ({code}: {message}), longer than "
                f"{retries.MAX_WAIT_S:.0f} s; run it again after that time"
            )
        else:
            return RequestFailed(f"the server answers {code}: {message}")
        return AskingStopped(f"{SECTION}.{reason}")

    def clean(self, text: str) -> str:
        """Return a server's words in one short line, without the key."""
        text = text.replace(self._secret, "***") if self._secret else text
        return " ".join(text.split())[:200]


async def ask_one_by_one(client: ApiClient, jobs: Sequence[Request]) -> None:
    """Get replies to all jobs, with at most `max_in_flight` requests under way."""
    waiting = collections.deque(jobs)
    client.workers = min(client.settings.max_in_flight, len(jobs))
    with progress_bar("asking", len(jobs)) as line:
        await asyncio.gather(*(_work(client, waiting, line) for _ in range(client.workers)))


async def _work(client: ApiClient, waiting: collections.deque[Request], line: Bar) -> None:
    """Finish job after job, until one says that nothing more can be asked.

    Where no request fits into max_cost the worker ends and leaves its job to the others, whose
    replies may cost less than counted and make room; the last worker stops the run.
    """
    outcome = client.outcome
    while waiting and not outcome.stopped:
        job = waiting.popleft()
        try:
            await _finish_job(client, job)
            client.failures = 0
        except AskingStopped as stop:
            if isinstance(stop, NoRoom) and client.workers > 1:
                waiting.appendleft(job)
                break
            outcome.stopped = outcome.stopped or str(stop)
        except RequestFailed as error:
            outcome.failed[job.key] = str(error)
            client.failures += 1
            if client.failures >= retries.GIVE_UP:
                reason = f"the last {retries.GIVE_UP} requests all failed: {error}"
                outcome.stopped = f"{SECTION}: {reason}"
        spent = client.cost_limit.spent
        line.advance(note=f"{spent:.2f}" if spent else None)
    client.workers -= 1


async def _finish_job(client: ApiClient, job: Request) -> None:
    client.cache.refresh()  # another process may have got the reply
    while request := next_request(client.settings, job, client.cache):
        try:
            await client.ask(request)
        except NoUsableReply:
            if not request.is_follow_up:
                raise
            client.cache.give_up(request.key)


def read_key(settings: Generative) -> str:
    """Return the key from the environment, "" where a server of one's own needs none.

    Raises:
        AskingStopped: If there is no key where one is needed, or none that can be one.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and settings.base_url.startswith(OPENAI):
        problem = "wants a key; set the environment variable OPENAI_API_KEY"
        raise AskingStopped(f"{SECTION}.base_url: {settings.base_url} {problem}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        problem = "OPENAI_API_KEY holds characters that no key has; set it again"
        raise AskingStopped(f"{SECTION}: {problem}")
    return key
