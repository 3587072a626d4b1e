"""Prompt formats: how a question is put to a model, and what stands between it and its answer.

The only place that knows the grammar of `data.template` and `data.chat`. Called by encoding.py,
benchmarks.py and the identifiers that show a model the question.
"""

import dataclasses
from typing import TYPE_CHECKING

from tif.config.data import CHAT, PLAIN, PromptKeys
from tif.data.chat_template import ChatFrame, read_chat_frame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Prompts = PromptKeys | str  # a text = that template, with the defaults of section `chat`


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


def read_template(
    prompts: Prompts, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> Template:
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
