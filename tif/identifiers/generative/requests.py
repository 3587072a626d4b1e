"""What the LLM is asked and how its reply is read: pure functions, no network, no file.

The text of a sample stands between tags that carry a hash of the text, so that it cannot close its own tag, and each
request holds one sample only: an order inside a text can reach no other sample.
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
from tif.identifiers.windows import Cut

SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "unwanted_words",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"words": {"type": "array", "items": {"type": "string"}}},
            "required": ["words"],
            "additionalProperties": False,
        },
    },
}

_BEGIN = re.compile(r'\{\s*"|\[\s*["\]]')


class BadAnswer(Exception):
    """A reply that cannot be used: a refusal, no JSON, JSON of another shape, cut at max_tokens."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to the model.

    Attributes:
        messages: the conversation.
        text: the answer (or passage) whose words are asked for.
        around: what is shown of the document around it; words from there are no one's.
        vote: number of the vote, from 0.
        key: hash of model, messages, temperature, seed and vote: the name of its answer on disk.
        follows_up: whether it asks again for strings that were not in the text.
    """

    messages: tuple[dict[str, str], ...]
    text: str
    around: str
    vote: int
    key: str
    follows_up: bool = False


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back and what it cost; `problem` says why it cannot be used whatever is in it."""

    content: str
    prompt_tokens: int
    answer_tokens: int
    problem: str | None = None


def first(cfg: Generative, sample: Sample, vote: int, cut: Cut | None = None) -> Request:
    """Ask for the unwanted words of a sample; without a prompt it is a passage of a document.

    Args:
        cfg: the settings.
        sample: question and answer, or a document.
        vote: number of the vote, from 0.
        cut: the stretch of the answer to mark and the one to show around it; None = all of it.
    """
    cut = cut or Cut(0, len(sample.answer), 0, len(sample.answer))
    text = sample.answer[cut.first : cut.last]
    shown = sample.answer[cut.start : cut.first], sample.answer[cut.last : cut.end]
    tag = hashlib.sha256("\0".join((sample.prompt, text, *shown)).encode(errors="replace")).hexdigest()[:12]
    name = "question_answer" if sample.prompt.strip() else "document"
    system, user = template(name).split("\n---\n")
    user = user.replace("{context}\n", f"{template('context')}\n" if any(shown) else "")
    parts = {
        "{tag}": tag, "{question}": sample.prompt, "{answer}": text, "{before}": shown[0], "{after}": shown[1],
    }  # fmt: skip
    user = re.sub("|".join(parts), lambda found: parts[found[0]], user)  # in one pass: a text may hold "{answer}"
    messages = {"role": "system", "content": system}, {"role": "user", "content": _sendable(user)}
    return Request(messages, text, "\n".join(shown), vote, _key(cfg, messages, vote))


def again(cfg: Generative, request: Request, words: Sequence[str], missing: Sequence[str]) -> Request:
    """Ask once more for the strings that are not in the text."""
    content = template("again").replace("{missing}", json.dumps(missing, ensure_ascii=False))
    messages = (
        *request.messages,
        {"role": "assistant", "content": _sendable(json.dumps({"words": words}, ensure_ascii=False))},
        {"role": "user", "content": _sendable(content)},
    )
    return Request(
        messages, request.text, request.around, request.vote, _key(cfg, messages, request.vote), follows_up=True
    )


def body(cfg: Generative, request: Request, attempt: int = 0, plain: bool = False) -> dict[str, Any]:
    """The request's JSON as the endpoint wants it.

    Args:
        cfg: the settings.
        request: what is asked.
        attempt: times that this was answered badly, in this run or before: another seed, lest the same comes back.
        plain: for servers that refuse JSON schemas or the newer parameters.
    """
    options: dict[str, Any] = {"model": cfg.model, "messages": list(request.messages)}
    if cfg.temperature is not None:
        options["temperature"] = cfg.temperature
    if cfg.seed is not None:
        options["seed"] = cfg.seed + request.vote + 1009 * attempt
    if plain:
        return options | {"max_tokens": cfg.max_tokens}
    return options | {"max_completion_tokens": cfg.max_tokens, "response_format": SCHEMA}


def read(cfg: Generative, request: Request, completion: Any) -> Reply:
    """The reply in a chat completion's JSON, whatever a server may send under that name."""
    try:
        choice = completion["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content") or "", message.get("refusal")
    except (LookupError, TypeError, AttributeError):
        return Reply("", 0, 0, f"no chat completion came back but {str(completion)[:60]!r}")
    usage, (prompt, answer) = completion.get("usage"), likely_tokens(cfg, request)
    if isinstance(usage, dict) and all(isinstance(usage.get(n), int) for n in ("prompt_tokens", "completion_tokens")):
        prompt, answer = usage["prompt_tokens"], usage["completion_tokens"]
    problem = None
    if refusal or finish == "content_filter":
        problem = f"the model refused ({' '.join(str(refusal or finish).split())[:80]})"
    elif finish == "length":
        problem = f"the reply was cut at max_tokens={cfg.max_tokens}; raise it"
    return Reply(str(content), prompt, answer, problem)


def parse(content: str) -> tuple[str, ...]:
    """The words of a reply, stripped, without empty and repeated ones.

    A server without schemas may wrap the JSON in prose, a code block or the model's thinking: the last object of the
    right shape counts, else the last list of strings.

    Raises:
        BadAnswer: If there is none.
    """
    objects, lists = list[list[str]](), list[list[str]]()
    for value in _json_values(content):
        inner = value.get("words") if isinstance(value, dict) else value
        if isinstance(inner, list) and all(isinstance(word, str) for word in inner):
            (objects if isinstance(value, dict) else lists).append(inner)
    if not objects + lists:
        raise BadAnswer(f'no JSON of the form {{"words": [...]}} in the reply {content[:60]!r}')
    found = (objects or lists)[-1]
    return tuple(dict.fromkeys(word.strip() for word in found if word.strip()))


def likely_tokens(cfg: Generative, request: Request) -> tuple[int, int]:
    """Prompt and answer tokens to expect, without the model's tokenizer: four bytes a token; half the text's words."""
    prompt = sum(len(message["content"].encode()) for message in request.messages)
    return prompt // 4 + 40, min(cfg.max_tokens, len(request.text.encode(errors="replace")) // 6 + 12)


def most_tokens(cfg: Generative, request: Request) -> tuple[int, int]:
    """Prompt and answer tokens that cannot be exceeded: a token is a byte at least, an answer ends at max_tokens."""
    return len(json.dumps(body(cfg, request), ensure_ascii=False).encode()) + 100, cfg.max_tokens


@functools.cache
def template(name: str) -> str:
    """A text of tif/identifiers/prompts: what the system says, a line "---", what the user says."""
    file = importlib.resources.files("tif.identifiers") / "prompts" / f"{name}.txt"
    return file.read_text(encoding="utf-8").strip()


def prompts_hash() -> str:
    """Changes with any of the texts that the model is asked with."""
    texts = [template(name) for name in ("question_answer", "document", "context", "again")]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _key(cfg: Generative, messages: Sequence[dict[str, str]], vote: int) -> str:
    parts = json.dumps([cfg.model, list(messages), cfg.temperature, cfg.seed, vote])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _sendable(text: str) -> str:
    """Without lone surrogates, which UTF-8 has no bytes for."""
    return text.encode(errors="replace").decode()


def _json_values(content: str) -> Iterator[Any]:
    """Each outermost JSON value in the text that begins like an object or a list of strings."""
    decoder, at = json.JSONDecoder(), 0
    while begin := _BEGIN.search(content, at):
        try:
            value, at = decoder.raw_decode(content, begin.start())
        except (ValueError, RecursionError):
            at = begin.start() + 1
            continue
        yield value
