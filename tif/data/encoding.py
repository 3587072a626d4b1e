"""Samples to token ids and masks: the only place that knows prompts, offsets and padding.

Shapes: B samples, T tokens of the longest one.
"""

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tif.data.samples import Sample, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kept = TypeVar("Kept")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One tokenised text. `uw` and `gw` have a value per token, are disjoint and cover exactly answer and end token."""

    id: str
    input_ids: list[int]
    uw: list[bool]
    gw: list[bool]


@dataclasses.dataclass
class Batch:
    """Encoded samples, padded at the right.

    Attributes:
        ids: the samples' ids.
        index: (B,) position of each sample in the forget set; the cached reference is looked up by it.
        input_ids: (B, T) long.
        lengths: (B,) long, real tokens of each row. Padding is known from here, never from `ids != pad`.
        uw, gw: (B, T) bool, aligned to input_ids: token t is (part of) an unwanted / a general word of the answer.
        retain: the retain sample paired with each forget sample, where the loss has a retain term.
        alternate: each forget sample's prompt with a refusal or another answer, where the forget term prefers that.
    """

    ids: tuple[str, ...]
    index: torch.Tensor
    input_ids: torch.Tensor
    lengths: torch.Tensor
    uw: torch.Tensor
    gw: torch.Tensor
    retain: "Batch | None" = None
    alternate: "Batch | None" = None

    @property
    def answer(self) -> torch.Tensor:
        """(B, T) bool: answer tokens and end token, what a model is asked to predict."""
        return self.uw | self.gw

    def rows(self, index: Sequence[int]) -> "Batch":
        """These samples with their pairs, padded to the longest of them."""
        at = torch.tensor(list(index), device=self.input_ids.device)
        length = int(self.lengths[at].max())
        ids, uw, gw = (t[at, :length] for t in (self.input_ids, self.uw, self.gw))
        pairs = (b and b.rows(index) for b in (self.retain, self.alternate))
        return Batch(tuple(self.ids[i] for i in index), self.index[at], ids, self.lengths[at], uw, gw, *pairs)

    def nothing(self) -> "Batch":
        """The same texts without an answer: every loss of them is 0."""
        none = torch.zeros_like(self.uw)
        retain, alternate = (pair and pair.nothing() for pair in (self.retain, self.alternate))
        return dataclasses.replace(self, uw=none, gw=none, retain=retain, alternate=alternate)


class Encoder:
    """Tokenises prompt and answer together, once, and labels the answer's tokens.

    Args:
        tokenizer: a fast tokenizer (offsets are needed) with an end token.
        template: text with `{prompt}`; the answer follows after one blank, which belongs to the answer's first token.
            "chat" takes the tokenizer's own chat template instead.
        overlap: label of a token that touches unwanted and general characters: "gw" (as released:
            xzhou98/Unlearning-TPO TOFU/data_module.py:62) or "uw".

    Raises:
        ValueError: If the tokenizer is slow, has no end token, or has no chat template where one is asked for.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str, overlap: str = "gw") -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"model.path: {type(tokenizer).__name__} gives no character offsets; want a fast tokenizer"
            )
        if tokenizer.eos_token_id is None:
            raise ValueError("model.path: the tokenizer has no end token; set eos_token in its tokenizer_config.json")
        if template == "chat" and not tokenizer.chat_template:
            raise ValueError("data.template: chat, but the tokenizer has no chat template; give a text with {prompt}")
        self.tokenizer, self.template, self.overlap = tokenizer, template, overlap
        pad = tokenizer.pad_token_id
        self.pad_id = int(tokenizer.eos_token_id if pad is None else pad)
        self.eos_id = int(tokenizer.eos_token_id)
        self.kept: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[], Kept]) -> Kept:
        """What `make` makes of texts with this tokenizer, made once for each key: epochs ask the same questions."""
        if key not in self.kept:
            self.kept[key] = make()
        found: Kept = self.kept[key]
        return found

    def prompt(self, prompt: str) -> str:
        """The text up to the answer, without the blank between them; nothing for a document, which has no prompt."""
        if not prompt:
            return ""
        if self.template == "chat":
            message = [{"role": "user", "content": prompt}]
            return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        return self.template.replace("{prompt}", prompt)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of the prompt alone, for generation."""
        return self.token_ids(self.prompt(prompt))

    def token_ids(self, text: str) -> list[int]:
        """Token ids of a text that goes on: special tokens before it, none after."""
        return self._tokenize(text)[0]

    def encode(self, sample: Sample, answer: str | None = None, prompt: str | None = None) -> Encoded:
        """Token ids and masks of a sample, or of another answer or prompt in its place (then nothing is unwanted)."""
        spans = (sample.unwanted or ()) if answer is None else ()
        text = sample.answer if answer is None else answer
        before = self.prompt(sample.prompt if prompt is None else prompt)
        before += " " if before and self.template != "chat" else ""
        ids, offsets = self._tokenize(before + text)
        first = _first(offsets, len(before))
        labels = _Labels(text, spans, self.overlap)
        uw = [False] * first + [labels.unwanted(s - len(before), e - len(before)) for s, e in offsets[first:]]
        gw = [False] * first + [not u for u in uw[first:]]
        return Encoded(sample.id, [*ids, self.eos_id], [*uw, False], [*gw, True])

    def join(self, before: str, answer: str) -> tuple[list[int], int]:
        """Token ids of two texts put together, without an end token, and where the second one begins."""
        ids, offsets = self._tokenize(before + answer)
        return ids, _first(offsets, len(before))

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        # A chat template writes the special tokens itself.
        special = self.template != "chat"
        tokens = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=special, verbose=False)
        ids, offsets = list(tokens["input_ids"]), list(tokens["offset_mapping"])
        # Some tokenizers end every text themselves; here a prompt goes on, and `encode` ends the answer, once.
        while text and ids[-1] == self.eos_id and tuple(offsets[-1]) == (0, 0):
            del ids[-1], offsets[-1]
        return ids, offsets


def _first(offsets: Sequence[tuple[int, int]], border: int) -> int:
    """The first token that reaches over the border opens the answer, even where it straddles it."""
    return next(t for t, (_, end) in enumerate(offsets) if end > border)


def pieces(encoded: Encoded, max_tokens: int) -> list[Encoded]:
    """A text in pieces of at most `max_tokens` tokens, all of them where it fits.

    A piece begins with the last token of the piece before it, as context that is not scored, so that each answer token
    after the text's first is scored exactly once. Ids get "#0", "#1", ... where there are several.
    """
    length = len(encoded.input_ids)
    if length <= max_tokens:
        return [encoded]
    found = []
    for number, start in enumerate(range(0, length - 1, max_tokens - 1)):
        part, again = slice(start, start + max_tokens), [False] * (start > 0)
        own = slice(start + len(again), start + max_tokens)
        found.append(
            Encoded(f"{encoded.id}#{number}", encoded.input_ids[part], again + encoded.uw[own], again + encoded.gw[own])
        )
    return found


class _Labels:
    """Whether characters start:end of the answer make an unwanted token."""

    def __init__(self, text: str, spans: Sequence[Span], overlap: str) -> None:
        self.text, self.overlap = text, overlap
        self.starts, self.ends = [s.start for s in spans], [s.end for s in spans]

    def unwanted(self, start: int, end: int) -> bool:
        start, end = max(start, 0), min(end, len(self.text))
        if self.text[start:end].strip():  # blanks at a token's edge decide nothing, unless it has nothing else
            while self.text[start].isspace():
                start += 1
            while self.text[end - 1].isspace():
                end -= 1
        characters = [self._in_span(i) for i in range(start, end)]
        if self.overlap == "uw":
            return any(characters)
        return (
            bool(characters)
            and all(inside or self.text[start + i].isspace() for i, inside in enumerate(characters))
            and any(characters)
        )

    def _in_span(self, position: int) -> bool:
        i = bisect.bisect_right(self.starts, position) - 1
        return i >= 0 and position < self.ends[i]


def collate(items: Sequence[Encoded], index: Sequence[int], pad_id: int) -> Batch:
    """Pad to the longest row. `index`: each item's position in the forget set (any number where no cache is used)."""
    length = max(len(e.input_ids) for e in items)

    def padded(rows: list[list], fill: Any) -> torch.Tensor:
        return torch.tensor([r + [fill] * (length - len(r)) for r in rows])

    return Batch(
        ids=tuple(e.id for e in items),
        index=torch.tensor(list(index)),
        input_ids=padded([e.input_ids for e in items], pad_id),
        lengths=torch.tensor([len(e.input_ids) for e in items]),
        uw=padded([e.uw for e in items], False),
        gw=padded([e.gw for e in items], False),
    )
