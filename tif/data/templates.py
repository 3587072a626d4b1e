"""Prompt formats: how a question is put to a model, and what stands between it and its answer.

The only place that knows the grammar of `data.template` and `data.chat`. A chat template is a
program that came with a model: it may loop for ever, fill the memory, or render something else
tomorrow. So it runs once, in a process with limits, on a few questions. The text before and after
them must always be the same, and is all that is used from then on.
"""

import dataclasses
import datetime
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tif.config.data import CHAT, DATE_FORMAT, PLAIN, Chat, PromptKeys
from tif.config.errors import ConfigError, brief, one_line
from tif.utils import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Prompts = PromptKeys | str  # a text = that template, with the defaults of section `chat`
SECONDS = 2  # of a processor, for all probes
MEGABYTES = 512
WAIT = 60  # seconds for the process, its start included
CHARACTERS = 20_000  # of a rendered text
# Blanks at the edges, lines, quotes, other scripts, and what looks like a template or a token.
QUESTIONS = (
    "Who wrote the Midnight Atlas?", " \n Where?\n\n  Here. \n", "\"a\" & 'b' <c> \\n é 東京 🙂",
    "{{ x }} {% if y %} <|im_end|> [INST] </s>", "12 * 7 = ?", "long " * 400 + "end",
)  # fmt: skip
ANSWER = "The answer is 84 pigeons."
TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


@dataclasses.dataclass(frozen=True)
class ChatFrame:
    """The text around a question.

    Attributes:
        before, after: the text; the answer follows after it at once.
        trim: what happens to blanks at the question's edges, as many templates strip them.
        between, end: the text after the question, and after the answer, of a whole conversation.
    """

    before: str
    after: str
    trim: Callable[[str], str]
    between: str
    end: str

    def render(self, question: str) -> str:
        """Return all text before the answer."""
        return self.before + self.trim(question) + self.after

    @property
    def blank(self) -> str:
        """Return what a whole conversation has between `after` and the answer, mostly nothing.

        Llama-2's has a blank there. Where an empty thought stands in `after` alone (as asked for by
        enable_thinking=false), the answer follows that.
        """
        return self.between[len(self.after) :] if self.between.startswith(self.after) else ""

    def render_turn(self, question: str, answer: str) -> str:
        """Return a conversation of a question and its answer, with what ends the answer's turn."""
        return self.before + self.trim(question) + self.between + self.trim(answer) + self.end


def read_chat_frame(tokenizer: "PreTrainedTokenizerBase", chat: Chat | None = None) -> ChatFrame:
    """Return the frame of a tokenizer's chat template, the same on each day.

    `chat`: section `data.chat`; None = its defaults.

    Raises:
        ConfigError: If there is no template, or none that serves; one line.
    """
    chat = chat or Chat()
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        reason = f"the tokenizer has no chat template ({one_line(error, 100)})"
        step = "give a text with {prompt}"
        raise ConfigError(f"data.template: chat, but {reason}; {step}") from None
    place = f"the chat template of {tokenizer.name_or_path or 'the tokenizer'}"
    for name in chat.kwargs:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise ConfigError(f"data.chat.kwargs: {place} has no variable {brief(name)}")
    variables = json.dumps({**tokenizer.special_tokens_map, **chat.kwargs}, sort_keys=True)
    try:
        return _find_frame(template, variables, chat.date, chat.system)
    except ValueError as error:
        step = "give a text with {prompt} as data.template"
        raise ConfigError(f"data.template: chat: {place}: {one_line(error)}; {step}") from None


@functools.cache
def _find_frame(template: str, variables: str, date: str, system: str) -> ChatFrame:
    """Return the frame; ValueError if the template puts no fixed text around questions."""
    start = [{"role": "system", "content": system}] if system else []
    questions = [[*start, {"role": "user", "content": question}] for question in QUESTIONS]
    answered = [*questions[0], {"role": "assistant", "content": ANSWER}]
    chats = [(messages, True) for messages in questions]
    chats += [(questions[0], False), (answered, False)]
    day = datetime.datetime.strptime(date, DATE_FORMAT).isoformat()
    request = {"template": template, "variables": json.loads(variables), "chats": chats}
    texts = _render(request | {"date": date, "day": day})
    if texts[: len(chats)] != texts[len(chats) :]:
        raise ValueError("it renders another text each time")
    *prompts, without_header, conversation = texts[: len(chats)]
    question = QUESTIONS[0]
    if any(text.count(question) != 1 for text in (prompts[0], conversation)):
        raise ValueError("it does not hold the question exactly once")
    before, _, after = prompts[0].partition(question)
    _, _, rest = conversation.partition(question)
    between, has_answer, end = rest.partition(ANSWER)
    frames = [ChatFrame(before, after, trim, between, end) for trim in TRIMS]
    rendered = [list(map(frame.render, QUESTIONS)) for frame in frames]
    if prompts not in rendered:
        raise ValueError("it changes the question, or the text around it depends on the question")
    if not has_answer:
        raise ValueError("it drops the answer")
    if prompts[0] == without_header and between.strip() != after.strip():
        raise ValueError("it ignores add_generation_prompt: nothing says that the answer begins")
    if system.strip() not in before + after:
        raise ValueError("it drops the system message; want data.chat.system empty")
    return frames[rendered.index(prompts)]


def _render(request: dict[str, Any]) -> list[str]:
    """Return the texts of the chats, each rendered twice; ValueError if the limits are passed."""
    request |= {"seconds": SECONDS, "megabytes": MEGABYTES, "characters": CHARACTERS}
    script = Path(render_chat.__file__)
    try:
        process = subprocess.run(
            [sys.executable, "-P", str(script)],
            input=json.dumps(request), capture_output=True, text=True, timeout=WAIT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(f"it is not rendered after {WAIT} seconds") from None
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ValueError(f"it takes more than {SECONDS} seconds or {MEGABYTES} MB")
    if process.returncode:
        raise ValueError(f"it ends the process that renders it ({process.stderr[-200:]})")
    result = json.loads(process.stdout)
    if "error" in result:
        raise ValueError(result["error"])
    texts: list[str] = result["texts"]
    return texts


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question is put to a model.

    Attributes:
        text: what stands before the answer, with `{prompt}`; "" for a chat.
        blank: stands between that and the answer; of a chat, what the whole conversation has there.
        chat: the tokenizer's own chat template; None = `text` is used.
    """

    text: str
    blank: str
    chat: ChatFrame | None = None

    def render(self, prompt: str) -> str:
        """Return the text before the answer, without `blank`."""
        return self.chat.render(prompt) if self.chat else self.text.replace("{prompt}", prompt)


def as_keys(prompts: Prompts) -> PromptKeys:
    """Return the keys of a prompt format that may be given as a plain template."""
    return PromptKeys(prompts) if isinstance(prompts, str) else prompts


def resolve_prompts(
    prompts: Prompts, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> PromptKeys:
    """Return the keys of a prompt format, with what `auto` means for a tokenizer in its place.

    None = a tokenizer that is made here, without a chat template.
    """
    keys = as_keys(prompts)
    if not keys.is_auto:
        return keys
    has_chat = tokenizer is not None and bool(tokenizer.chat_template)
    return dataclasses.replace(keys, template=CHAT if has_chat else PLAIN)


def read_template(prompts: Prompts, tokenizer: "PreTrainedTokenizerBase | None" = None) -> Template:
    """Return the prompt format that the keys `template` and `chat` mean for a tokenizer.

    Raises:
        ConfigError: If it is a chat, and the tokenizer has no chat template that serves.
    """
    keys = resolve_prompts(prompts, tokenizer)
    if keys.is_chat and tokenizer is not None:
        frame = read_chat_frame(tokenizer, keys.chat)
        return Template("", frame.blank, frame)
    before, place, _ = keys.template.partition("{answer}")
    return Template(before, "" if place or before[-1:].isspace() else " ")
