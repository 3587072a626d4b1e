"""The requests to the LLM, and how its replies are read: pure functions, no network, no file.

The prompt texts are in `tif/identifiers/prompts`. The text of a sample stands between tags that
carry a hash of the text, so that it cannot close its own tag. Each request holds one sample only:
an instruction inside a text can reach no other sample.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from tif.data.samples import Sample
from tif.identifiers.context_windows import Passage
from tif.identifiers.generative.keys import Generative

_WORDS = {"type": "array", "items": {"type": "string"}}
_OBJECT = {
    "type": "object", "properties": {"words": _WORDS}, "required": ["words"],
    "additionalProperties": False,
}  # fmt: skip
_JSON_SCHEMA = {"name": "unwanted_words", "strict": True, "schema": _OBJECT}
REPLY_SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": _JSON_SCHEMA}
SEED_STEP = 1009  # added to the seed each time that a request was answered badly
MAX_TOKENS = 10**9  # of one request; more is no count
CHARACTERS_PER_TOKEN = 32  # no text has more on average
_LOOP = 6  # times that zlib shortens a reply that repeats itself, and no other

# A list of strings in prose, with what stands before it: the name "words", or what makes it a part
# of something else. Possessive quantifiers: no stretch is read twice, so that time grows with the
# length only.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\.)*+"'
_LIST = rf"\[\s*+(?:{_STRING}\s*+(?:,\s*+{_STRING}\s*+)*+)?\]"
_LIST_IN_PROSE = re.compile(rf'(?:("words"\s*+:\s*+)|("\s*+:\s*+|\[\s*+))?({_LIST})')


class BadReply(Exception):
    """A reply that cannot be used: a refusal, no JSON, another shape, cut at max_tokens."""


@dataclasses.dataclass(frozen=True)
class TokenCount:
    """Numbers of prompt and answer tokens."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.prompt + other.prompt, self.answer + other.answer)

    def __sub__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.prompt - other.prompt, self.answer - other.answer)

    def cost(self, settings: Generative) -> float:
        """Return what the tokens cost, in the currency of the prices."""
        return (settings.price_in * self.prompt + settings.price_out * self.answer) / 1e6


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
    """A reply and its numbers of tokens; `problem`: why it cannot be used, whatever it contains."""

    content: str
    prompt_tokens: int
    answer_tokens: int
    problem: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for values of a wrong type or size."""
        texts = self.content, self.problem or ""
        counts = self.prompt_tokens, self.answer_tokens
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("want texts as content and problem")
        if not all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts):
            raise ValueError(f"want numbers of tokens up to {MAX_TOKENS}, got {counts!r:.60}")

    @property
    def tokens(self) -> TokenCount:
        """The tokens paid for."""
        return TokenCount(self.prompt_tokens, self.answer_tokens)


@dataclasses.dataclass
class Outcome:
    """Requests, tokens and failures of this run."""

    replies: int = 0  # received, unusable ones included
    tokens: TokenCount = TokenCount()  # of all requests that were sent
    uncounted: int = 0  # requests whose tokens no server counted: their upper limit is in `tokens`
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
    prompt_name = "question_answer" if sample.prompt.strip() else "document"
    context = f"{load_prompt('context')}\n" if before or after else ""
    prompt = load_prompt(prompt_name).replace("{context}\n", context)
    parts = {"question": sample.prompt, "answer": text, "before": before, "after": after}
    messages = fill_prompt(prompt, parts)
    key = hash_request(settings, messages, vote)
    return Request(messages, text, f"{before}\n{after}", vote, key)


def fill_prompt(prompt: str, parts: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    """Return the messages of a prompt text, with the parts, by name, in the user's."""
    shown = "\0".join(parts.values())
    tag = hashlib.sha256(shown.encode(errors="replace")).hexdigest()[:12]
    places = {"{tag}": tag} | {f"{{{name}}}": part for name, part in parts.items()}
    system, user = prompt.split("\n---\n")
    # Replaced in one pass: a text may hold "{answer}".
    user = re.sub("|".join(places), lambda match: places[match[0]], user)
    return _message("system", system), _message("user", user)


def make_follow_up(
    settings: Generative, request: Request, words: Sequence[str], missing: Sequence[str]
) -> Request:
    """Return the request that asks once more for the `missing` ones of a reply's `words`."""
    reply = json.dumps({"words": words}, ensure_ascii=False)
    strings = json.dumps(missing, ensure_ascii=False)
    question = load_prompt("again").replace("{missing}", strings)
    messages = (*request.messages, _message("assistant", reply), _message("user", question))
    key = hash_request(settings, messages, request.vote)
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
    """Return the reply in the JSON of a chat completion; where it is malformed, one with a problem.

    Read by hand and not through openai's types, where one wrong field would refuse a reply whose
    words and cost can be read.
    """
    try:
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = _join_content(message.get("content")), message.get("refusal")
        tokens = _read_usage(settings, request, content, completion.get("usage"))
    except (LookupError, TypeError, AttributeError):
        tokens = bound_tokens(settings, request)
        other = f"no chat completion came back but {str(completion)[:60]!r}"
        return Reply("", tokens.prompt, tokens.answer, other)
    problem = None
    most = CHARACTERS_PER_TOKEN * settings.max_tokens
    if refusal or finish == "content_filter":
        reason = " ".join(str(refusal or finish).split())[:80]
        problem = f"the model refused ({reason})"
    elif finish == "length":
        advice = "raise it"
        text = content.encode(errors="replace")
        if len(text) > _LOOP * len(zlib.compress(text)):
            advice = "it repeats itself, so more would not help; want another model or temperature"
        problem = f"the reply was cut at max_tokens={settings.max_tokens}; {advice}"
    elif len(content) > most:
        problem = (
            f"the reply has {len(content):,} characters, more than the {most:,} that "
            f"max_tokens={settings.max_tokens} allows"
        )
    return Reply(content[:most], tokens.prompt, tokens.answer, problem)


def _join_content(content: Any) -> str:
    """Return a message's content, which may come as a list of parts; "" for None."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str | None):
        raise TypeError(f"want a text as content, got {type(content).__name__}")
    return content or ""


def _read_usage(settings: Generative, request: Request, content: str, usage: Any) -> TokenCount:
    """Return the tokens that a server counted, where they can be true; else their upper limit.

    They can be true where they are integers, each at least the characters of its text divided by
    CHARACTERS_PER_TOKEN, and no more than its limit. A reply's own length counts where a server
    ignores `max_tokens`.
    """
    bound = bound_tokens(settings, request)
    most = TokenCount(bound.prompt, max(bound.answer, len(content.encode(errors="replace"))))
    if not isinstance(usage, dict):
        return most
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(answer) is not int:
        return most
    shown = sum(len(message["content"]) for message in request.messages)
    least_prompt, least_answer = shown / CHARACTERS_PER_TOKEN, len(content) / CHARACTERS_PER_TOKEN
    is_prompt_possible = least_prompt <= prompt <= most.prompt
    is_answer_possible = max(1, least_answer) <= answer <= most.answer
    return TokenCount(prompt, answer) if is_prompt_possible and is_answer_possible else most


def parse_words(content: str) -> tuple[str, ...]:
    """Return the words of a reply, stripped, without empty and repeated ones.

    A server without schemas may wrap the JSON in prose, a code block or the model's thinking: the
    last list named "words" counts, else the last list of strings that is no part of other JSON.
    Takes time that is linear in the reply's length, whatever is in it.

    Raises:
        BadReply: If there is none.
    """
    try:
        value = json.loads(content, object_pairs_hook=_refuse_repeated_keys)
        words = value.get("words") if isinstance(value, dict) else value
    except RecursionError:
        words = None
    except ValueError:
        words = _find_list_in_prose(content)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadReply(f'no JSON of the form {{"words": [...]}} in the reply {content[:60]!r}')
    stripped = [word.strip() for word in words]
    return tuple(dict.fromkeys(word for word in stripped if word))


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadReply("the reply's JSON has a key twice")
    return dict(pairs)


def _find_list_in_prose(content: str) -> Any:
    """Return the last list of strings, those named "words" first; None where there is none."""
    last_named, last_bare = None, None
    for match in _LIST_IN_PROSE.finditer(content):
        name, other_context, strings = match.groups()
        if name:
            last_named = strings
        elif not other_context:
            last_bare = strings
    try:
        return json.loads(last_named or last_bare or "null")
    except ValueError:  # an escape that JSON does not have
        return None


def estimate_tokens(settings: Generative, request: Request) -> TokenCount:
    """Return a guess of the tokens: four bytes a token; half of the words are unwanted."""
    prompt_bytes = sum(len(message["content"].encode()) for message in request.messages)
    text_bytes = len(request.text.encode(errors="replace"))
    return TokenCount(prompt_bytes // 4 + 40, min(settings.max_tokens, text_bytes // 6 + 12))


def bound_tokens(settings: Generative, request: Request) -> TokenCount:
    """Return the most tokens that a request can take: each has at least one byte."""
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


def hash_request(settings: Generative, messages: Sequence[dict[str, str]], vote: int = 0) -> str:
    """Return a hash of all that decides about a reply."""
    parts = [settings.model, list(messages), settings.temperature, settings.seed, vote]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _message(role: str, content: str) -> dict[str, str]:
    """Return a message without lone surrogates, which UTF-8 has no bytes for."""
    return {"role": role, "content": content.encode(errors="replace").decode()}
