"""The openai client with manners: a time limit for whole requests, a budget, errors in one line, the key in none."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import openai

from tif.config.identifier import OPENAI, Generative
from tif.identifiers.generative.answers import Answers
from tif.identifiers.generative.requests import BadAnswer, Reply, Request, body, most_tokens, read

SECTION = "identifier.generative"
ASK_AGAIN = 2  # times a request whose reply cannot be used is sent again
GIVE_UP = 20  # requests that failed one after the other


class Stop(ValueError):
    """Nothing more can be asked: no server, no key, no such model, no money. One line that starts with a config key."""


class Failed(Exception):
    """One request failed for good; others may not."""


class Useless(Failed):
    """Replies came, none of use."""


class Client:
    """Asks one request at a time for each caller, and keeps what comes.

    Attributes:
        answers: where replies go.
        asked: replies got, the unusable ones included.
        paid: prompt and answer tokens of these.
        stopped: why nothing more is asked; None while all is well.
    """

    def __init__(self, cfg: Generative, answers: Answers, spent: float = 0.0) -> None:
        """`spent` is what the kept answers cost: it counts against max_cost."""
        self.cfg, self.answers, self.spent = cfg, answers, spent
        self.asked, self.paid = 0, (0, 0)
        self.stopped: str | None = None
        self._key = _key_from_environment(cfg)  # "" where there is none
        self._held, self._under_way, self._freed = 0.0, 0, asyncio.Condition()
        self._plain, self._failures = False, 0
        self.openai = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=cfg.base_url,
            timeout=cfg.timeout_s,
            max_retries=cfg.retries,
            http_client=_limited(cfg.timeout_s),
        )

    async def ask(self, request: Request) -> None:
        """Get a usable answer into `answers`.

        Raises:
            Failed: If none came (Useless: if some came, none of use).
            Stop: If no request has a chance any more.
        """
        if self.stopped:
            raise Stop(self.stopped)
        try:
            await self._ask(request)
            self._failures = 0
        except Stop as stop:
            self.stopped = self.stopped or str(stop)
            raise
        except Failed as failed:
            self._failures += 1
            if self._failures >= GIVE_UP:
                self.stopped = f"{SECTION}: the last {GIVE_UP} requests all failed: {failed}"
            raise

    async def _ask(self, request: Request) -> None:
        problem = ""
        for _ in range(1 + ASK_AGAIN):
            async with self._held_back(self.cfg.cost(*most_tokens(self.cfg, request))):
                reply = await self._send(request, self.answers.replies[request.key])
                try:
                    self.keep(request, reply)
                    return
                except BadAnswer as bad:
                    problem = str(bad)
        raise Useless(f"{1 + ASK_AGAIN} replies, none of use: {problem}")

    def keep(self, request: Request, reply: Reply) -> None:
        """Count and keep a reply.

        Raises:
            BadAnswer: If it cannot be used.
        """
        self.asked += 1
        self.paid = self.paid[0] + reply.prompt_tokens, self.paid[1] + reply.answer_tokens
        self.spent += self.cfg.cost(reply.prompt_tokens, reply.answer_tokens)
        self.answers.add(request.key, reply)

    async def _send(self, request: Request, attempt: int) -> Reply:
        """One reply. A server that refuses schemas (400, 422) is asked plainly from then on."""
        refused: openai.APIStatusError | None = None
        for plain in (True,) if self._plain else (False, True):
            options = body(self.cfg, request, attempt, plain)
            try:
                completion = await self.openai.post("/chat/completions", body=options, cast_to=object)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = refused or error
                continue
            except (openai.OpenAIError, ValueError) as error:
                if isinstance(error, openai.APIResponseValidationError | ValueError):
                    completion = "a body that is no JSON"
                else:
                    raise self.explained(error) from None
            self._plain = plain
            return self.read(request, completion)
        assert refused
        raise self.explained(refused) from None

    def read(self, request: Request, completion: Any) -> Reply:
        """The reply in a chat completion's JSON, without the key, should a server send it back."""
        if self._key and self._key in (text := json.dumps(completion)):
            completion = json.loads(text.replace(self._key, "***"))
        return read(self.cfg, request, completion)

    @contextlib.asynccontextmanager
    async def _held_back(self, amount: float) -> AsyncIterator[None]:
        """Set the most that a request may cost aside; waits for requests under way where that may make room."""
        limit = self.cfg.max_cost
        async with self._freed:
            while limit is not None and self.spent + self._held + amount > limit:
                if not self._under_way:
                    raise self.over_budget(amount)
                await self._freed.wait()
                if self.stopped:
                    raise Stop(self.stopped)
            self._held, self._under_way = self._held + amount, self._under_way + 1
        try:
            yield
        finally:
            async with self._freed:
                self._held, self._under_way = self._held - amount, self._under_way - 1
                self._freed.notify_all()

    def over_budget(self, amount: float) -> Stop:
        """What to tell where `amount` more may be too much."""
        return Stop(
            f"{SECTION}.max_cost: stopped at {self.spent:.4f} of {self.cfg.max_cost}: what comes next may cost up to "
            f"{amount:.4f}; raise max_cost, or lower max_tokens"
        )

    def explained(self, error: Exception) -> Stop | Failed:
        """An error of the openai package as one line without the key."""
        cfg, url = self.cfg, self.cfg.base_url
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            # The server's own words may quote the key.
            return Stop(f"{SECTION}.base_url: {url} refuses the key in OPENAI_API_KEY ({error.status_code})")
        if isinstance(error, openai.NotFoundError):
            return Stop(
                f"{SECTION}.model: {url} has no model {cfg.model!r} (404: {self._told(error)}); check model, "
                "and base_url, which mostly ends in /v1"
            )
        if isinstance(error, openai.APITimeoutError):
            return Failed(f"no complete answer within {cfg.timeout_s:g} s, asked {1 + cfg.retries} times")
        if isinstance(error, openai.APIConnectionError):
            if type(error.__cause__).__name__ == "ConnectError":
                return Stop(f"{SECTION}.base_url: cannot reach {url} ({self.clean(str(error.__cause__))})")
            return Failed(f"the connection was lost, {1 + cfg.retries} times")
        if isinstance(error, openai.APIStatusError):
            return Failed(f"the server answers {error.status_code}: {self._told(error)}")
        return Failed(f"{type(error).__name__}: {self.clean(str(error))}")

    def _told(self, error: openai.APIStatusError) -> str:
        """The server's own words in an error."""
        own = error.body.get("message") if isinstance(error.body, dict) else error.body
        return self.clean(str(own or error.message))

    def clean(self, text: str) -> str:
        """A stranger's words in one short line, without the key."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:200]


def _key_from_environment(cfg: Generative) -> str:
    """The key, "" where a server of one's own needs none.

    Raises:
        Stop: If it is missing or cannot be sent.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and cfg.base_url.startswith(OPENAI):
        raise Stop(f"{SECTION}.base_url: {cfg.base_url} wants a key; set the environment variable OPENAI_API_KEY")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise Stop(f"{SECTION}: OPENAI_API_KEY holds characters that no key has; set it again")
    return key


def _limited(seconds: float) -> Any:
    """The client's HTTP client, with a limit on the whole request: its own limit starts anew with each byte."""
    base = openai.DefaultAsyncHttpxClient
    timeout_error = sys.modules[base.__mro__[1].__module__.split(".")[0]].ReadTimeout  # httpx's, or httpx2's

    class Limited(base):  # type: ignore[misc, valid-type]
        async def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                async with asyncio.timeout(seconds):
                    return await super().send(*args, **kwargs)
            except TimeoutError:
                raise timeout_error("the answer was not complete in time") from None

    return Limited()
