"""The HTTP client behind the API client: how much a request may take, and where it may go.

Called by `api_client` and `batch_api` of this folder. The `openai` package has a limit on the time
between two bytes only, stores replies of any size, and follows redirects to any host.
"""

import asyncio
import email.utils
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import openai

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
        max_bytes: of a reply's body, decompressed.
    """

    def __init__(
        self, seconds: float, max_bytes: int, tell_wait: Callable[[float], None]
    ) -> None:
        """`seconds`: for an entire request; `tell_wait` is called before long waits."""
        super().__init__(follow_redirects=False)
        self.seconds, self.max_bytes, self.tell_wait = seconds, max_bytes, tell_wait

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request and return the complete response.

        Raises:
            ReplyTooLong: If the body is longer than `max_bytes`.
            httpx.ReadTimeout: If the response is not complete in time; the package tries again.
        """
        options |= {"stream": True, "follow_redirects": False}
        try:
            async with asyncio.timeout(self.seconds):
                response = await self._send_within_server(request, options)
                try:
                    content = await self._read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise _httpx.ReadTimeout("the answer was not complete in time") from None
        headers = {name: response.headers[name] for name in response.headers}
        for name in _BODY_HEADERS:
            headers.pop(name, None)
        wait = read_wait(headers)
        if wait > MAX_WAIT_S:
            headers["x-should-retry"] = "false"  # understood by the openai package
        elif wait >= LONG_WAIT_S and response.is_error:
            self.tell_wait(wait)
        return _httpx.Response(
            response.status_code, headers=headers, content=content, request=response.request
        )

    async def _send_within_server(self, request: Any, options: Mapping[str, Any]) -> Any:
        response = await super().send(request, **options)
        for _ in range(MAX_REDIRECTS):
            following = response.next_request
            if following is None or _server(following.url) != _server(request.url):
                break
            await response.aclose()
            response = await super().send(following, **options)
        return response

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
