"""The HTTP client behind the API client: how much a request may take and cost, where it may go.

Called by `api_client` and `batch_api` of this folder. The `openai` package has a limit on the time
between two bytes only, stores replies of any size, follows redirects to any host, and tells nobody
how often it sent a request again.
"""

import asyncio
import email.utils
import sys
import time
from collections.abc import Mapping
from typing import Any

import openai

from tif.identifiers.generative.cost_limit import CostLimit
from tif.identifiers.generative.keys import Generative
from tif.identifiers.generative.prompts_and_replies import CHARACTERS_PER_TOKEN
from tif.utils.terminal import console

KEY_HEADER = "X-Client-Request-Id"  # holds Request.key: who pays
MAX_WAIT_S = 60.0  # longer waits that a server asks for end the run
LONG_WAIT_S = 10.0  # shown to the user
MAX_REDIRECTS = 3  # within the same server

_Client: Any = openai.DefaultAsyncHttpxClient
_httpx: Any = sys.modules[_Client.__mro__[1].__module__.split(".")[0]]  # httpx2 from openai 3
_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class ReplyTooLong(openai.OpenAIError):
    """A server sent more bytes than its reply may have; the rest was not read."""


class LimitedClient(_Client):
    """The openai package's HTTP client with limits on entire requests.

    A request that goes on elsewhere is not sent: what is to be forgotten, and the key, go to the
    server of `base_url` only. Its reply is the redirect itself.

    Attributes:
        reply_bytes: of a reply's body, decompressed. max_bytes: of the next response's.
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
        headers = {name: response.headers[name] for name in response.headers}
        for name in _BODY_HEADERS:
            headers.pop(name, None)
        wait = read_wait(headers)
        if wait > MAX_WAIT_S:
            headers["x-should-retry"] = "false"  # understood by the openai package
        elif wait >= LONG_WAIT_S and response.is_error and not self._has_told_wait:
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


def read_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds that a response asks to wait (Retry-After); 0 where it does not."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers[name]) / divisor)
        except (KeyError, ValueError):
            continue
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, moment.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
