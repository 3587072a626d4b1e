"""The limit on what requests cost: each is counted at its upper limit before it is sent.

Called by `http_client`, `api_client` and `batch_api`. `ReplyCache` holds the account.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tif.identifiers.generative.keys import SECTION, Generative
from tif.identifiers.generative.prompts_and_replies import TokenCount
from tif.identifiers.generative.reply_cache import ReplyCache


class AskingStopped(ValueError):
    """Nothing more can be asked: no server, key, model or money. One line, a config key first."""


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
        """The cost of all requests so far, earlier runs included; open ones at their limit."""
        return self.cache.paid.cost(self.settings)

    def exceeds(self, tokens: TokenCount) -> bool:
        """Tell whether so many more tokens may cost too much."""
        most, sum_of_tokens = self.settings.max_cost, self.cache.paid + tokens
        return most is not None and sum_of_tokens.cost(self.settings) > most

    def stop(self, tokens: TokenCount) -> AskingStopped:
        """Return the error that says that so many more tokens may cost too much."""
        return AskingStopped(
            f"{SECTION}.max_cost: stopped at {self.spent:.4f} of {self.settings.max_cost}: what "
            f"comes next may cost up to {tokens.cost(self.settings):.4f}; raise max_cost, or lower "
            "max_tokens"
        )

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Surround all that is done about one request: its reply may make room for others."""
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
        if key not in self.bounds:  # it asks no model
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
