"""Retry of the API client: what is sent again, how often, and when asking ends.

The `openai` package sends again after 429, 5xx and lost connections (key `retries`, Retry-After
obeyed). Read by `api_client`, `batch_api` and `http_client`.
"""

import email.utils
import time
from collections.abc import Mapping

ASK_AGAIN = 2  # times a request whose reply cannot be used is sent again
GIVE_UP = 20  # failures one after the other that end the run
MAX_WAIT_S = 60.0  # longer waits that a server asks for end the run
LONG_WAIT_S = 10.0  # shown to the user


class AskingStopped(ValueError):
    """Nothing more can be asked: no server, key, model or money. One line, a config key first."""


class NoRoom(AskingStopped):
    """The next request does not fit into max_cost; those under way may cost less and make room."""


class RequestFailed(Exception):
    """One request failed for good; others may not."""


class NoUsableReply(RequestFailed):
    """All replies to a request were unusable."""


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
