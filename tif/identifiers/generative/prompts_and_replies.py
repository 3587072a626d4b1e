"""What the LLM is asked, and how its reply is read: pure functions, no network, no file.

Called by `api_client`, `batch_api`, `reply_cache` and `identify` of this folder. The prompt texts
are in `tif/identifiers/prompts`.

The text of a sample stands between tags that carry a hash of the text, so that it cannot close its
own tag, and each request holds one sample only: an order inside a text can reach no other sample.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tif.config.identifier import Generative
from tif.data.samples import Sample
from tif.identifiers.windows import Passage

_WORDS = {"type": "array", "items": {"type": "string"}}
_OBJECT = {
    "type": "object", "properties": {"words": _WORDS}, "required": ["words"],
    "additionalProperties": False,
}  # fmt: skip
_JSON_SCHEMA = {"name": "unwanted_words", "strict": True, "schema": _OBJECT}
REPLY_SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": _JSON_SCHEMA}
SEED_STEP = 1009  # added to the seed each time that a request was answered badly

_JSON_START = re.compile(r'\{\s*"|\[\s*["\]]')


class BadReply(Exception):
    """A reply that cannot be used: a refusal, no JSON, another shape, cut at max_tokens."""


@dataclasses.dataclass(frozen=True)
class TokenCount:
    """Numbers of prompt and answer tokens."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.prompt + other.prompt, self.answer + other.answer)

    def cost(self, settings: Generative) -> float:
        """Return what the tokens cost, in the currency of the prices."""
        return settings.cost(self.prompt, self.answer)


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to the model."""

    messages: tuple[dict[str, str], ...]  # the conversation
    text: str  # the answer (or passage) whose words are asked for
    around: str  # what is shown of the document around it; words from there are ignored
    vote: int  # number of the vote, from 0
    key: str  # hash of all that decides about the reply: its name on disk
    is_follow_up: bool = False  # asks again for strings that were not in the text


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back and what it cost; `problem` says why it cannot be used whatever is in it."""

    content: str
    prompt_tokens: int
    answer_tokens: int
    problem: str | None = None

    @property
    def tokens(self) -> TokenCount:
        """The tokens paid for."""
        return TokenCount(self.prompt_tokens, self.answer_tokens)


@dataclasses.dataclass
class Outcome:
    """What asking came to in this run."""

    replies: int = 0  # got, those of no use included
    tokens: TokenCount = TokenCount()  # of these, as the server counts them, else estimated
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # why no reply, by key
    stopped: str | None = None  # why asking ended early; None where it did not


def make_request(
    settings: Generative, sample: Sample, vote: int, passage: Passage | None = None
) -> Request:
    """Return the request for the unwanted words of a sample, or of a passage of its answer.

    A sample without a prompt is a document.
    """
    answer = sample.answer
    passage = passage or Passage(0, len(answer), 0, len(answer))
    text = answer[passage.start : passage.end]
    before = answer[passage.shown_start : passage.start]
    after = answer[passage.end : passage.shown_end]
    shown = "\0".join((sample.prompt, text, before, after))
    tag = hashlib.sha256(shown.encode(errors="replace")).hexdigest()[:12]
    prompt_name = "question_answer" if sample.prompt.strip() else "document"
    system, user = load_prompt(prompt_name).split("\n---\n")
    context = f"{load_prompt('context')}\n" if before or after else ""
    user = user.replace("{context}\n", context)
    parts = {
        "{tag}": tag, "{question}": sample.prompt, "{answer}": text, "{before}": before,
        "{after}": after,
    }  # fmt: skip
    # Replaced in one pass: a text may hold "{answer}".
    user = re.sub("|".join(parts), lambda match: parts[match[0]], user)
    messages = _message("system", system), _message("user", user)
    key = _hash_request(settings, messages, vote)
    return Request(messages, text, f"{before}\n{after}", vote, key)


def make_follow_up(
    settings: Generative, request: Request, words: Sequence[str], missing: Sequence[str]
) -> Request:
    """Return the request that asks once more for the `missing` ones of a reply's `words`."""
    reply = json.dumps({"words": words}, ensure_ascii=False)
    strings = json.dumps(missing, ensure_ascii=False)
    question = load_prompt("again").replace("{missing}", strings)
    messages = (*request.messages, _message("assistant", reply), _message("user", question))
    key = _hash_request(settings, messages, request.vote)
    return dataclasses.replace(request, messages=messages, key=key, is_follow_up=True)


def make_request_body(
    settings: Generative, request: Request, attempt: int = 0, is_plain: bool = False
) -> dict[str, Any]:
    """Return the request's JSON as the endpoint wants it.

    Args:
        settings: section `identifier.generative`.
        request: what is asked.
        attempt: times that this was answered badly in all runs; each takes another seed.
        is_plain: for servers that refuse JSON schemas or the newer parameters.
    """
    body: dict[str, Any] = {"model": settings.model, "messages": list(request.messages)}
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.seed is not None:
        body["seed"] = settings.seed + request.vote + SEED_STEP * attempt
    if is_plain:
        return body | {"max_tokens": settings.max_tokens}
    return body | {"max_completion_tokens": settings.max_tokens, "response_format": REPLY_SCHEMA}


def read_completion(settings: Generative, request: Request, completion: Any) -> Reply:
    """Return the reply in a chat completion's JSON, whatever a server sends under that name.

    Read by hand and not through openai's or pydantic's types: one wrong field would refuse a reply
    whose words and cost can be read.
    """
    try:
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content") or "", message.get("refusal")
    except (LookupError, TypeError, AttributeError):
        return Reply("", 0, 0, f"no chat completion came back but {str(completion)[:60]!r}")
    usage, tokens = completion.get("usage"), estimate_tokens(settings, request)
    if isinstance(usage, dict):
        prompt_tokens, answer_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt_tokens, int) and isinstance(answer_tokens, int):
            tokens = TokenCount(prompt_tokens, answer_tokens)
    problem = None
    if refusal or finish == "content_filter":
        reason = " ".join(str(refusal or finish).split())[:80]
        problem = f"the model refused ({reason})"
    elif finish == "length":
        problem = f"the reply was cut at max_tokens={settings.max_tokens}; raise it"
    return Reply(str(content), tokens.prompt, tokens.answer, problem)


def parse_words(content: str) -> tuple[str, ...]:
    """Return the words of a reply, stripped, without empty and repeated ones.

    A server without schemas may wrap the JSON in prose, a code block or the model's thinking: the
    last object of the right shape counts, else the last list of strings.

    Raises:
        BadReply: If there is none.
    """
    last_object: list[str] | None = None
    last_list: list[str] | None = None
    for value in _find_json(content):
        if isinstance(value, dict) and _is_list_of_strings(value.get("words")):
            last_object = value["words"]
        elif _is_list_of_strings(value):
            last_list = value
    words = last_list if last_object is None else last_object
    if words is None:
        raise BadReply(f'no JSON of the form {{"words": [...]}} in the reply {content[:60]!r}')
    stripped = [word.strip() for word in words]
    return tuple(dict.fromkeys(word for word in stripped if word))


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _find_json(content: str) -> Iterator[Any]:
    """Yield each outermost JSON value that begins like an object or a list of strings."""
    decoder = json.JSONDecoder()
    position = 0
    while start := _JSON_START.search(content, position):
        try:
            value, position = decoder.raw_decode(content, start.start())
        except (ValueError, RecursionError):
            position = start.start() + 1
            continue
        yield value


def estimate_tokens(settings: Generative, request: Request) -> TokenCount:
    """Return the tokens to expect: four bytes a token, half of the text's words as the answer."""
    prompt_bytes = sum(len(message["content"].encode()) for message in request.messages)
    text_bytes = len(request.text.encode(errors="replace"))
    return TokenCount(prompt_bytes // 4 + 40, min(settings.max_tokens, text_bytes // 6 + 12))


def bound_tokens(settings: Generative, request: Request) -> TokenCount:
    """Return the tokens that cannot be exceeded: a token is a byte at least."""
    body = json.dumps(make_request_body(settings, request), ensure_ascii=False)
    return TokenCount(len(body.encode()) + 100, settings.max_tokens)


@functools.cache
def load_prompt(name: str) -> str:
    """Return a prompt text: what the system says, a line "---", what the user says."""
    file = importlib.resources.files("tif.identifiers") / "prompts" / f"{name}.txt"
    return file.read_text(encoding="utf-8").strip()


def hash_prompts() -> str:
    """Return a hash that changes with any of the prompt texts."""
    texts = [load_prompt(name) for name in ("question_answer", "document", "context", "again")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _hash_request(settings: Generative, messages: Sequence[dict[str, str]], vote: int) -> str:
    parts = [settings.model, list(messages), settings.temperature, settings.seed, vote]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _message(role: str, content: str) -> dict[str, str]:
    """Return a message without lone surrogates, which UTF-8 has no bytes for."""
    return {"role": role, "content": content.encode(errors="replace").decode()}
