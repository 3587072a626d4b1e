"""The HTTP client behind the API client: limits on time, size, cost and redirects of each request.

The `openai` package limits the time between two bytes only, stores replies of any size, follows
redirects to any host, and does not report how often it sent a request again. Each request is
counted at the most that it can cost before it is sent; `ReplyCache` holds the account.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import openai

from tif.identifiers.generative import retries
from tif.identifiers.generative.keys import SECTION, Generative
from tif.identifiers.generative.prompts_and_replies import CHARACTERS_PER_TOKEN, TokenCount
from tif.identifiers.generative.reply_cache import ReplyCache
from tif.identifiers.generative.retries import AskingStopped
from tif.utils.terminal import console

KEY_HEADER = "X-Client-Request-Id"  # holds Request.key: who pays
MAX_REDIRECTS = 3  # within the same server

_Client: Any = openai.DefaultAsyncHttpxClient
_httpx: Any = sys.modules[_Client.__mro__[1].__module__.split(".")[0]]  # httpx2 from openai 3
_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class CostLimit:
    """Lets a request be sent only where its highest possible cost fits into `max_cost`.

    Attributes:
        bounds: by request key, the tokens that a request cannot exceed.
    """

    def __init__(self, settings: Generative, cache: ReplyCache) -> None:
        self.settings, self.cache = settings, cache
        self.bounds: dict[str, TokenCount] = {}
        self._active = 0  # turns that do not wait
        self._changed = asyncio.Condition()

    @property
    def spent(self) -> float:
        """The cost of all requests so far, also in earlier runs; unanswered ones at their limit."""
        return self.cache.paid.cost(self.settings)

    def exceeds(self, tokens: TokenCount) -> bool:
        """Tell whether so many more tokens may cost too much."""
        most, sum_of_tokens = self.settings.max_cost, self.cache.paid + tokens
        return most is not None and sum_of_tokens.cost(self.settings) > most

    def stop(self, tokens: TokenCount) -> AskingStopped:
        """Return the error that so many more tokens may cost too much."""
        return AskingStopped(
            f"{SECTION}.max_cost: stopped at {self.spent:.4f} of {self.settings.max_cost}: the "
            f"next request may cost up to {tokens.cost(self.settings):.4f}; raise max_cost, or "
            "lower max_tokens"
        )

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Mark a request as under way: its reply may cost less than counted and make room."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            async with self._changed:
                self._changed.notify_all()

    async def open_request(self, key: str) -> None:
        """Count a request at its limit; wait for others where their replies may make room.

        Raises:
            AskingStopped: If there is no room for it, and no reply is awaited.
        """
        if key not in self.bounds:  # a file or a batch, which costs nothing itself
            return
        async with self._changed:
            while self.exceeds(self.bounds[key]):
                self._active -= 1
                try:
                    if not self._active:
                        raise self.stop(self.bounds[key])
                    await self._changed.wait()
                finally:
                    self._active += 1
            self.cache.open_request(key, self.bounds[key])

    def close_request(self, key: str, has_arrived: bool) -> None:
        """Count a request that was not answered at its prompt, or at nothing."""
        if key in self.bounds:
            self.cache.close_request(key, has_arrived)


class ReplyTooLong(openai.OpenAIError):
    """A server sent more bytes than its reply may have; the rest was not read."""


class LimitedClient(_Client):
    """The openai package's HTTP client with limits on entire requests.

    A redirect to another server is not followed, but returned as the reply: the texts to forget and
    the key go to the server of `base_url` only.

    Attributes:
        reply_bytes: the most bytes of a reply's body, decompressed.
        max_bytes: the most bytes of the next response's body.
    """

    def __init__(self, settings: Generative, cost_limit: CostLimit) -> None:
        super().__init__(follow_redirects=False)
        self.settings, self.cost_limit = settings, cost_limit
        # Content and thinking, each character escaped.
        self.reply_bytes = 1_000_000 + 2 * 12 * CHARACTERS_PER_TOKEN * settings.max_tokens
        self.max_bytes = self.reply_bytes
        self._has_told_wait = False

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return the complete response, after redirects within the server.

        Raises:
            AskingStopped: If it may cost too much.
            ReplyTooLong: If the body is longer than `max_bytes`.
            httpx.ReadTimeout: If the response is not complete in time; the package tries again.
        """
        response = await self._send_once(request, options)
        for _ in range(MAX_REDIRECTS):
            following = response.next_request
            if following is None or _server(following.url) != _server(request.url):
                break
            response = await self._send_once(following, options)
        return response

    async def _send_once(self, request: Any, options: Mapping[str, Any]) -> Any:
        key = request.headers.get(KEY_HEADER, "")
        await self.cost_limit.open_request(key)
        options = {**options, "stream": True, "follow_redirects": False}
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                response = await super().send(request, **options)
                try:
                    content = await self._read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise _httpx.ReadTimeout("the answer was not complete in time") from None
        except _httpx.ConnectError:
            self.cost_limit.close_request(key, has_arrived=False)
            raise
        if 300 <= response.status_code < 500:
            self.cost_limit.close_request(key, has_arrived=True)
        return self._complete(response, content)

    def _complete(self, response: Any, content: bytes) -> Any:
        """Return the response with its decompressed body."""
        items = response.headers.items()
        headers = {name: value for name, value in items if name not in _BODY_HEADERS}
        wait = retries.read_wait(headers)
        if wait > retries.MAX_WAIT_S:
            headers["x-should-retry"] = "false"  # understood by the openai package
        elif wait >= retries.LONG_WAIT_S and response.is_error and not self._has_told_wait:
            line = f"{self.settings.base_url} asks to wait {wait:.0f} s (Retry-After)"
            console.print(line, soft_wrap=True)
            self._has_told_wait = True
        complete = _httpx.Response(
            response.status_code, headers=headers, content=content, request=response.request
        )
        complete.next_request = response.next_request
        return complete

    async def _read_body(self, response: Any) -> bytes:
        if "," in response.headers.get("content-encoding", ""):
            raise ReplyTooLong("the reply is compressed twice; it was not read")
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > self.max_bytes:
                raise ReplyTooLong(
                    f"the reply has more than {self.max_bytes:,} bytes; the rest was not read"
                )
            parts.append(part)
        return b"".join(parts)


def _server(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
