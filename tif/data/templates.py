"""Prompt formats: how a question is put to a model, and what stands between it and its answer.

The only place that knows the grammar of `data.template`. Called by encoding.py, benchmarks.py and
the identifiers that show a model the question.
"""

import dataclasses
from typing import TYPE_CHECKING

from tif.config.data import is_chat
from tif.data.chat_template import ChatFrame, read_chat_frame

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class Template:
    """How a question is put to a model.

    Attributes:
        text: what stands before the answer, with `{prompt}`; "" for a chat.
        blank: stands between that and the answer.
        chat: the tokenizer's own chat template; None = `text` is used.
    """

    text: str
    blank: str
    chat: ChatFrame | None = None

    def render(self, prompt: str) -> str:
        """Return the text before the answer, without `blank`."""
        return self.chat.render(prompt) if self.chat else self.text.replace("{prompt}", prompt)


def read_template(template: str, tokenizer: "PreTrainedTokenizerBase | None" = None) -> Template:
    """Return the prompt format that a value of `data.template` means for a tokenizer.

    Raises:
        ConfigError: If it is a chat, and the tokenizer has no chat template that serves.
    """
    if is_chat(template) and tokenizer is not None:
        return Template("", "", read_chat_frame(tokenizer, template.partition("|")[2].strip()))
    before, place, _ = template.partition("{answer}")
    return Template(before, "" if place or before[-1:].isspace() else " ")
