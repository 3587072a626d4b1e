"""The HTTP client behind the API client: limits on time, size, cost and redirects of each request.

The `openai` package limits the time between two bytes only, stores replies of any size, follows
redirects to any host, and does not report how often it sent a request again. Each request is
counted at the most that it can cost before it is sent; `ReplyCache` holds the account.
"""

import asyncio
import sys
from typing import Any

import openai

from tif.identifiers.generative import retries
from tif.identifiers.generative.keys import SECTION, Generative
from tif.identifiers.generative.prompts_and_replies import CHARACTERS_PER_TOKEN, TokenCount
from tif.identifiers.generative.reply_cache import ReplyCache
from tif.utils.terminal import console

KEY_HEADER = "X-Client-Request-Id"  # holds Request.key: who pays
MAX_REDIRECTS = 3  # within the same server

_Client: Any = openai.DefaultAsyncHttpxClient
_httpx: Any = sys.modules[_Client.__mro__[1].__module__.split(".")[0]]  # httpx2 from openai 3
_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class CostLimit:
    """Lets a request be sent only where its highest possible cost fits into `max_cost`.

    Attributes:
        bounds: by request key, the tokens that a request cannot exceed. A key that is not there is
            a file or a batch, which costs nothing itself.
    """

    def __init__(self, settings: Generative, cache: ReplyCache) -> None:
        self.settings, self.cache = settings, cache
        self.bounds: dict[str, TokenCount] = {}

    @property
    def spent(self) -> float:
        """The cost of all requests so far, also in earlier runs; unanswered ones at their limit."""
        return self.cache.paid.cost(self.settings)

    def check(self, tokens: TokenCount) -> None:
        """Raise NoRoom if so many more tokens may cost too much."""
        most = self.settings.max_cost
        if most is not None and (self.cache.paid + tokens).cost(self.settings) > most:
            raise retries.NoRoom(
                f"{SECTION}.max_cost: stopped at {self.spent:.4f} of {most}: the next request may "
                f"cost up to {tokens.cost(self.settings):.4f}; raise max_cost, or lower max_tokens"
            )

    def open_request(self, key: str) -> None:
        """Count a request at its limit; raise NoRoom if there is no room for it."""
        if key in self.bounds:
            self.check(self.bounds[key])
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
            NoRoom: If it may cost too much.
            ReplyTooLong: If the body is longer than `max_bytes`.
            httpx.ReadTimeout: If the response is not complete in time; the package tries again.
        """
        options |= {"stream": True, "follow_redirects": False}
        response = await self._send_once(request, options)
        for _ in range(MAX_REDIRECTS):
            following = response.next_request
            if following is None or _server(following.url) != _server(request.url):
                break
            response = await self._send_once(following, options)
        return response

    async def _send_once(self, request: Any, options: dict[str, Any]) -> Any:
        key = request.headers.get(KEY_HEADER, "")
        self.cost_limit.open_request(key)
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
        complete = _httpx.Response(
            response.status_code, headers=self._read_headers(response), content=content,
            request=response.request,
        )  # fmt: skip
        complete.next_request = response.next_request
        return complete

    def _read_headers(self, response: Any) -> dict[str, str]:
        """Return the headers of a decompressed response; a long wait is shown, or ends the run."""
        headers = {k: v for k, v in response.headers.items() if k not in _BODY_HEADERS}
        wait = retries.read_wait(headers)
        if wait > retries.MAX_WAIT_S:
            headers["x-should-retry"] = "false"  # understood by the openai package
        elif wait >= retries.LONG_WAIT_S and response.is_error and not self._has_told_wait:
            line = f"{self.settings.base_url} asks to wait {wait:.0f} s (Retry-After)"
            console.print(line, soft_wrap=True)
            self._has_told_wait = True
        return headers

    async def _read_body(self, response: Any) -> bytes:
        if "," in response.headers.get("content-encoding", ""):
            raise ReplyTooLong("the reply is compressed twice; it was not read")
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > self.max_bytes:
                raise ReplyTooLong(
                    f"the reply has more than {self.max_bytes:,} bytes; the rest was not read"
                )
        return bytes(content)


def _server(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
