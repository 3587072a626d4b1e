"""The keys of the identifier `generative`: an LLM behind an OpenAI-compatible endpoint."""

import dataclasses
import urllib.parse

from tif.config.keys import key

OPENAI = "https://api.openai.com/v1"
SECTION = "identifier.generative"
# The keys that decide about the replies. The others say how replies are got.
REPLY_KEYS = (
    "base_url", "model", "votes", "max_tokens", "temperature", "seed", "window_characters",
)  # fmt: skip


@dataclasses.dataclass
class Generative:
    """An LLM behind an OpenAI-compatible endpoint; its key comes from OPENAI_API_KEY only."""

    base_url: str = key(OPENAI, "the endpoint, up to and with /v1; a local server's is "
        "http://127.0.0.1:8000/v1")
    model: str | None = key(None, "the model's name at that endpoint")
    votes: int = key(1, "times each sample is sent; the majority counts", at_least=1, at_most=25)
    max_in_flight: int = key(8, "requests under way at once", at_least=1, at_most=1000)
    timeout_s: float = key(60.0, "seconds a request may take until its answer is complete", above=0)
    retries: int = key(5, "times a request is sent again after 429, 5xx or a lost connection "
        "(Retry-After obeyed; each counts for max_cost)", at_least=0)
    max_tokens: int = key(2048, "tokens of one answer at most, a reasoning model's thinking "
        "included", at_least=16)
    temperature: float | None = key(None, "null = the endpoint's default; votes need > 0",
        at_least=0, at_most=2)
    seed: int | None = key(0, "sent plus the number of the vote; null = not sent", at_least=0,
        at_most=2**31)
    dry_run: bool = key(False, "print requests, tokens and cost, and send nothing")
    max_cost: float | None = key(None, "stop before a request that might make all requests "
        "about these samples, of earlier runs too, cost more (in the prices' currency)", at_least=0)
    price_in: float = key(0.0, "per million prompt tokens (batch_api: its price)", at_least=0)
    price_out: float = key(0.0, "per million answer tokens (batch_api: its price)", at_least=0)
    batch_api: bool = key(False, "send everything through the provider's Batch API: cheaper, "
        "within 24 hours; for large corpora")
    window_characters: int = key(4000, "characters of a document shown at once: half of them to "
        "mark, the rest is context", at_least=200)
    cache: str = key("runs/answers", "folder of all answers ever got (by model, prompt, text, "
        "vote); none is paid twice")

    def find_problems(self) -> list[str]:
        """Return the problems between keys, one line each, names without the section."""
        problems = []
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            problems.append("base_url: want an address that starts with http:// or https://")
        elif url.username or url.password or url.query:
            problems.append("base_url: want no user, password or query in it; the key goes into "
                "OPENAI_API_KEY")
        if not self.model:
            problems.append(f"model: want the name of a model at {url.hostname}, got null")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            problems.append("max_cost: needs price_in and price_out (per million tokens) to count "
                "with, got 0 and 0")
        if self.votes > 1 and self.temperature == 0:
            problems.append(f"votes: {self.votes} votes at temperature 0 are one; want temperature "
                "> 0 or null")
        return problems
