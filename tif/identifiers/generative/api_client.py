"""The client of an OpenAI-compatible API: retries, time and cost limits, requests under way.

Called by `identify` of this folder; `batch_api` uses the same client. The `openai` package sends
again after 429, 5xx and lost connections (`retries`). Added here: a limit on an entire request's
time, one on the cost, other seeds after replies of no use, a stop when nothing has a chance any
more, and errors of one line that never show the API key.
"""

import asyncio
import collections
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai

from tif.config.identifier import OPENAI, Generative
from tif.identifiers.generative.prompts_and_replies import (
    BadReply,
    Reply,
    Request,
    TokenCount,
    bound_tokens,
    make_request_body,
    read_completion,
)
from tif.identifiers.generative.reply_cache import ReplyCache, next_request
from tif.utils.terminal import Bar, progress_bar

SECTION = "identifier.generative"
ASK_AGAIN = 2  # times a request whose reply cannot be used is sent again
GIVE_UP = 20  # requests that failed one after the other
_SCHEMA_REFUSED = (openai.BadRequestError, openai.UnprocessableEntityError)


class AskingStopped(ValueError):
    """Nothing more can be asked: no server, key, model or money. One line, a config key first."""


class RequestFailed(Exception):
    """One request failed for good; others may not."""


class NoUsableReply(RequestFailed):
    """Replies came, none of use."""


class CostLimit:
    """Lets a request start only where its highest possible cost fits into `max_cost`."""

    def __init__(self, limit: float | None, spent: float) -> None:
        self.limit = limit  # None = none
        self.spent = spent  # what the replies cost, those of earlier runs included
        self._reserved = 0.0
        self._under_way = 0
        self._released = asyncio.Condition()

    def exceeds(self, amount: float) -> bool:
        """Tell whether `amount` more may be too much."""
        return self.limit is not None and self.spent + self._reserved + amount > self.limit

    def describe_excess(self, amount: float) -> str:
        """Return the line that says that `amount` more may be too much."""
        spent = f"stopped at {self.spent:.4f} of {self.limit}"
        return (
            f"{SECTION}.max_cost: {spent}: what comes next may cost up to {amount:.4f}; "
            "raise max_cost, or lower max_tokens"
        )

    @contextlib.asynccontextmanager
    async def reserve(self, amount: float) -> AsyncIterator[None]:
        """Set `amount` aside for the block; wait for requests under way where that makes room.

        Raises:
            AskingStopped: If nothing is under way and `amount` is too much.
        """
        async with self._released:
            while self.exceeds(amount):
                if not self._under_way:
                    raise AskingStopped(self.describe_excess(amount))
                await self._released.wait()
            self._reserved += amount
            self._under_way += 1
        try:
            yield
        finally:
            async with self._released:
                self._reserved -= amount
                self._under_way -= 1
                self._released.notify_all()


class ApiClient:
    """Asks one request at a time for each caller, and caches each reply.

    Attributes:
        cache: where replies go.
        reply_count: replies got, the unusable ones included.
        tokens: tokens of these.
        stopped: why nothing more is asked; None while all is well.
    """

    def __init__(self, settings: Generative, cache: ReplyCache, spent: float = 0.0) -> None:
        """`spent` is what the cached replies cost: it counts against max_cost."""
        self.settings = settings
        self.cache = cache
        self.cost_limit = CostLimit(settings.max_cost, spent)
        self.reply_count = 0
        self.tokens = TokenCount()
        self.stopped: str | None = None
        self._key = _read_key(settings)  # "" where there is none
        self._is_plain = False  # the server refuses schemas
        self._failures = 0  # one after the other
        self.openai = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout_s,
            max_retries=settings.retries,
            http_client=_make_http_client(settings.timeout_s),
        )

    async def ask(self, request: Request) -> None:
        """Get a usable reply into the cache.

        Raises:
            RequestFailed: If none came (NoUsableReply: if some came, none of use).
            AskingStopped: If no request has a chance any more.
        """
        if self.stopped:
            raise AskingStopped(self.stopped)
        try:
            await self._ask_until_usable(request)
            self._failures = 0
        except AskingStopped as stop:
            self.stopped = self.stopped or str(stop)
            raise
        except RequestFailed as failed:
            self._failures += 1
            if self._failures >= GIVE_UP:
                self.stopped = f"{SECTION}: the last {GIVE_UP} requests all failed: {failed}"
            raise

    async def _ask_until_usable(self, request: Request) -> None:
        problem = ""
        for _ in range(1 + ASK_AGAIN):
            most = bound_tokens(self.settings, request).cost(self.settings)
            async with self.cost_limit.reserve(most):
                if self.stopped:  # by another request while this one waited
                    raise AskingStopped(self.stopped)
                reply = await self._send(request, self.cache.counts[request.key])
                try:
                    self.store(request, reply)
                    return
                except BadReply as bad:
                    problem = str(bad)
        raise NoUsableReply(f"{1 + ASK_AGAIN} replies, none of use: {problem}")

    def store(self, request: Request, reply: Reply) -> None:
        """Count and cache a reply.

        Raises:
            BadReply: If it cannot be used.
        """
        self.reply_count += 1
        self.tokens += reply.tokens
        self.cost_limit.spent += reply.tokens.cost(self.settings)
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
        body = make_request_body(self.settings, request, attempt, is_plain)
        completion: Any
        try:
            completion = await self.openai.post("/chat/completions", body=body, cast_to=object)
        except _SCHEMA_REFUSED:
            raise
        except (openai.APIResponseValidationError, ValueError):
            completion = "a body that is no JSON"
        except openai.OpenAIError as error:
            raise self.explain(error) from None
        return self.read(request, completion)

    def read(self, request: Request, completion: Any) -> Reply:
        """Return the reply in a chat completion's JSON, without the key if a server echoes it."""
        text = json.dumps(completion)
        if self._key and self._key in text:
            completion = json.loads(text.replace(self._key, "***"))
        return read_completion(self.settings, request, completion)

    def explain(self, error: Exception) -> AskingStopped | RequestFailed:
        """Return an error of the openai package as one line without the key."""
        settings, url, tries = self.settings, self.settings.base_url, 1 + self.settings.retries
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            # The server's own words may quote the key.
            return AskingStopped(
                f"{SECTION}.base_url: {url} refuses the key in OPENAI_API_KEY ({error.status_code})"
            )
        if isinstance(error, openai.NotFoundError):
            return AskingStopped(
                f"{SECTION}.model: {url} has no model {settings.model!r} "
                f"(404: {self._server_message(error)}); check model, and base_url, which mostly "
                "ends in /v1"
            )
        if isinstance(error, openai.APITimeoutError):
            limit = f"{settings.timeout_s:g} s"
            return RequestFailed(f"no complete answer within {limit}, asked {tries} times")
        if isinstance(error, openai.APIConnectionError):
            if type(error.__cause__).__name__ == "ConnectError":
                reason = self.clean(str(error.__cause__))
                return AskingStopped(f"{SECTION}.base_url: cannot reach {url} ({reason})")
            return RequestFailed(f"the connection was lost, {tries} times")
        if isinstance(error, openai.APIStatusError):
            message = self._server_message(error)
            return RequestFailed(f"the server answers {error.status_code}: {message}")
        return RequestFailed(f"{type(error).__name__}: {self.clean(str(error))}")

    def _server_message(self, error: openai.APIStatusError) -> str:
        message = error.body.get("message") if isinstance(error.body, dict) else error.body
        return self.clean(str(message or error.message))

    def clean(self, text: str) -> str:
        """Return a server's words in one short line, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:200]


async def ask_one_by_one(client: ApiClient, jobs: Sequence[Request]) -> dict[str, str]:
    """Get replies to all jobs; return why jobs have none, by key.

    Jobs that were left when asking stopped are not among them; `client.stopped` says why.
    """
    waiting = collections.deque(jobs)
    failed: dict[str, str] = {}
    with progress_bar("asking", len(jobs)) as line:
        workers = min(client.settings.max_in_flight, len(jobs))
        await asyncio.gather(*(_work(client, waiting, failed, line) for _ in range(workers)))
    return failed


async def _work(
    client: ApiClient, waiting: collections.deque[Request], failed: dict[str, str], line: Bar
) -> None:
    """Finish job after job; ends when asking stops. Other workers' requests still come in."""
    while waiting:
        job = waiting.popleft()
        try:
            await _finish_job(client, job)
        except AskingStopped:
            return
        except RequestFailed as error:
            failed[job.key] = str(error)
        spent = client.cost_limit.spent
        line.advance(note=f"{spent:.2f}" if spent else None)


async def _finish_job(client: ApiClient, job: Request) -> None:
    while request := next_request(client.settings, job, client.cache):
        try:
            await client.ask(request)
        except NoUsableReply:
            if not request.is_follow_up:
                raise
            client.cache.give_up(request.key)


def _read_key(settings: Generative) -> str:
    """Return the key from the environment, "" where a server of one's own needs none.

    Raises:
        AskingStopped: If it is missing or cannot be sent.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and settings.base_url.startswith(OPENAI):
        raise AskingStopped(
            f"{SECTION}.base_url: {settings.base_url} wants a key; "
            "set the environment variable OPENAI_API_KEY"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise AskingStopped(
            f"{SECTION}: OPENAI_API_KEY holds characters that no key has; set it again"
        )
    return key


def _make_http_client(seconds: float) -> Any:
    """Return the openai package's HTTP client, with a limit on the time of an entire request.

    The package's own timeout starts anew with each byte, so a server that sends a byte now and then
    would hold a request for ever. Its timeout error is raised, so that the package tries again.
    """
    base = openai.DefaultAsyncHttpxClient
    httpx = sys.modules[base.__mro__[1].__module__.split(".")[0]]  # httpx, or httpx2 from openai 3

    class TimeLimitedClient(base):  # type: ignore[misc, valid-type]
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                async with asyncio.timeout(seconds):
                    return await super().send(*args, **kwargs)
            except TimeoutError:
                raise httpx.ReadTimeout("the answer was not complete in time") from None

    return TimeLimitedClient()
