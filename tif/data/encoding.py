"""Turn samples into token ids, masks and padded batches.

The only place that knows prompts, character offsets and padding. Shapes: B samples, T tokens of the
longest one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tif.data.samples import Sample, Span
from tif.data.templates import Prompts, read_template, resolve_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A tokenised text; `uw` and `gw` are disjoint and cover exactly answer and end token."""

    id: str
    input_ids: list[int]
    uw: list[bool]
    gw: list[bool]


@dataclasses.dataclass
class Batch:
    """Encoded samples, padded at the right.

    Attributes:
        ids: ids of the samples.
        index: (B,) long, position of each sample in the forget set; the cached reference is looked
            up by it.
        input_ids: (B, T) long.
        lengths: (B,) long, tokens of each row without padding. Padding is known from here only,
            never from `ids != pad`.
        uw, gw: (B, T) bool, aligned to input_ids: token t is (part of) an unwanted or a general
            word of the answer.
        retain: the retain sample paired with each forget sample, where the loss has a retain term.
        alternate: the prompt of each forget sample with a refusal or another answer, where the
            forget term prefers that.
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
        """(B, T) bool, the answer and its end token: what a model is asked to predict."""
        return self.uw | self.gw

    def select_rows(self, rows: Sequence[int]) -> "Batch":
        """Return these samples with their pairs, padded to the longest of them."""
        at = torch.tensor(list(rows), device=self.input_ids.device)
        length = int(self.lengths[at].max())
        ids, uw, gw = self.input_ids[at, :length], self.uw[at, :length], self.gw[at, :length]
        names = tuple(self.ids[row] for row in rows)
        retain = self.retain and self.retain.select_rows(rows)
        alternate = self.alternate and self.alternate.select_rows(rows)
        return Batch(names, self.index[at], ids, self.lengths[at], uw, gw, retain, alternate)

    def without_answers(self) -> "Batch":
        """Return the same texts without answer tokens: every loss of them is 0."""
        none = torch.zeros_like(self.uw)
        retain = self.retain and self.retain.without_answers()
        alternate = self.alternate and self.alternate.without_answers()
        return dataclasses.replace(self, uw=none, gw=none, retain=retain, alternate=alternate)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch and its pairs on a device."""
        changes: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor | Batch):
                changes[name] = value.to(device)
        return dataclasses.replace(self, **changes)


class Encoder:
    """Tokenises prompt and answer together, in one piece, and labels the tokens of the answer.

    Args:
        tokenizer: a fast tokenizer (offsets are needed) with an end token.
        prompts: the keys `data.template` and `data.chat`, see templates.py. A blank that is not in
            the template belongs to the answer: to its first token, or a token before that.
        overlap: label of a token that touches unwanted and general characters: "gw" (as released:
            xzhou98/Unlearning-TPO TOFU/data_module.py:62) or "uw".

    Raises:
        ValueError: If the tokenizer is slow, has no end token, or has no chat template that serves
            where the template is "chat".
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", prompts: Prompts, overlap: str = "gw"
    ) -> None:
        if not tokenizer.is_fast:
            problem = f"{type(tokenizer).__name__} gives no character offsets"
            raise ValueError(f"model.path: {problem}; want a fast tokenizer")
        if tokenizer.eos_token_id is None:
            step = "set eos_token in its tokenizer_config.json"
            raise ValueError(f"model.path: the tokenizer has no end token; {step}")
        self.tokenizer, self.overlap = tokenizer, overlap
        self.prompts = resolve_prompts(prompts, tokenizer)
        self.format = read_template(self.prompts, tokenizer)
        self.eos_id = int(tokenizer.eos_token_id)
        self.turn_end, self.turn_end_id = self._find_turn_end()
        pad_id = tokenizer.pad_token_id
        self.pad_id = self.eos_id if pad_id is None else int(pad_id)
        self._results: dict[str, Any] = {}

    def compute_once(self, key: str, compute: Callable[[], T]) -> T:
        """Return the function's result, computed once a key: epochs ask the same questions."""
        if key not in self._results:
            self._results[key] = compute()
        result: T = self._results[key]
        return result

    def render_prompt(self, prompt: str) -> str:
        """Return the text before the answer, without a blank between them; "" for a document."""
        return self.format.render(prompt) if prompt else ""

    def _find_turn_end(self) -> tuple[str, int]:
        """Return the text after a chat's answer up to its first special token, and that token.

        Without a chat, or where it marks the end by plain text: "" and the end token.
        """
        if self.format.chat:
            end, added = self.format.chat.end, self.tokenizer.added_tokens_decoder
            for token, (_, stop) in zip(*self._tokenize(end, begins=False), strict=True):
                if token in added and added[token].special:
                    return end[:stop], token
        return "", self.eos_id

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Return the tokens that end a generation."""
        return tuple({self.eos_id, self.turn_end_id})

    def get_end(self, prompt: str) -> int:
        """Return the token that ends an answer to a prompt, or a document (without a prompt).

        It is the one that a chat model learned to end its turns with (Gemma: <end_of_turn>, Phi-3:
        <|end|>), which is not always its tokenizer's end token.
        """
        return self.turn_end_id if prompt else self.eos_id

    def encode_turn(self, prompt: str, answer: str) -> list[int]:
        """Return the token ids of a question and answer as the chat template ends them.

        The end token follows, where another one (or a line break) ends the answer's turn.
        """
        assert self.format.chat
        ids = self._tokenize(self.format.chat.render_turn(prompt, answer))[0]
        return ids if ids[-1] == self.eos_id else [*ids, self.eos_id]

    def decode_prompt(self, text: str) -> str:
        """Return a rendered prompt as logs show it: decoded, without special tokens."""
        return str(self.tokenizer.decode(self.encode_text(text), skip_special_tokens=True))

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the token ids of the prompt alone, for generation."""
        return self.encode_text(self.render_prompt(prompt))

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of a text that goes on: special tokens before it, none after."""
        return self._tokenize(text)[0]

    def encode_pair(self, before: str, answer: str) -> tuple[list[int], int]:
        """Return the token ids of two joined texts, without end token, and the answer's start."""
        ids, offsets = self._tokenize(before + answer)
        return ids, _find_answer_start(offsets, len(before))

    def encode(
        self, sample: Sample, answer: str | None = None, blank_counts: bool = True
    ) -> Encoded:
        """Return token ids and masks of a sample; nothing of another answer is unwanted.

        A blank before the answer that is a token alone (Llama-3's before a digit) is general, since
        a generation must begin with it. `blank_counts=False`: it is the prompt's.
        """
        spans: Sequence[Span] = ()
        if answer is None:
            answer, spans = sample.answer, sample.unwanted or ()
        prompt = self.render_prompt(sample.prompt)
        before = prompt + self.format.blank if prompt else ""
        end = self.turn_end if before else ""
        ids, offsets = self._tokenize(before + answer + end)
        if not end:
            ids.append(self.eos_id)
            offsets.append((len(before + answer),) * 2)
        answer_start = _find_answer_start(offsets, len(before))
        if blank_counts and self.format.blank.isspace():  # a chat may have an empty thought there
            while answer_start and _is_after(offsets[answer_start - 1], len(prompt)):
                answer_start -= 1
        places = []
        for start, stop in offsets[answer_start:]:  # what ends the answer is general
            stop = min(max(stop - len(before), 0), len(answer))
            places.append((max(start - len(before), 0), stop))
        uw = [False] * answer_start + self.mark_unwanted(answer, spans, places)
        gw = [False] * answer_start + [not unwanted for unwanted in uw[answer_start:]]
        return Encoded(sample.id, ids, uw, gw)

    def mark_unwanted(
        self, answer: str, spans: Sequence[Span], places: Sequence[tuple[int, int]]
    ) -> list[bool]:
        """Return for each token of an answer, which stands at [start, end), if it is unwanted."""
        is_unwanted = bytearray(len(answer))
        for span in spans:
            is_unwanted[span.start : span.end] = b"\1" * (span.end - span.start)
        return [
            _is_token_unwanted(answer, is_unwanted, start, end, self.overlap)
            for start, end in places
        ]

    def _tokenize(self, text: str, begins: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
        """Return token ids and character offsets of a text, without an end token.

        A text that begins gets the special tokens that stand before one. A chat has them already.
        """
        if self.format.chat and text.startswith(self.format.chat.before):
            begins = False
        tokens = self.tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=begins, verbose=False
        )
        ids, offsets = list(tokens["input_ids"]), list(tokens["offset_mapping"])
        # Some tokenizers end every text themselves. Here a prompt goes on, and `encode` ends the
        # answer.
        while text and ids[-1] == self.eos_id and tuple(offsets[-1]) == (0, 0):
            del ids[-1], offsets[-1]
        return ids, offsets


def _find_answer_start(offsets: Sequence[tuple[int, int]], border: int) -> int:
    """Return the first token that ends after the border, also where it begins before it."""
    for token, (_, end) in enumerate(offsets):
        if end > border:
            return token
    raise ValueError(f"no token after character {border}: the answer is empty")


def _is_after(place: tuple[int, int], border: int) -> bool:
    """Return whether a token stands after a border; a blank may have been cut from its front."""
    return place[0] >= border and place[1] > border


def _is_token_unwanted(
    text: str, is_unwanted: bytearray, start: int, end: int, overlap: str
) -> bool:
    """Return whether the token text[start:end] is unwanted; blanks at its edges do not count."""
    token = text[start:end]
    if token.strip():
        start += len(token) - len(token.lstrip())
        end -= len(token) - len(token.rstrip())
    if overlap == "uw" or not any(is_unwanted[start:end]):
        return any(is_unwanted[start:end])
    return all(is_unwanted[i] or text[i].isspace() for i in range(start, end))


def split_into_pieces(encoded: Encoded, max_tokens: int) -> list[Encoded]:
    """Return a text in pieces of at most `max_tokens` tokens, with ids "<id>#0", "<id>#1", ...

    A piece begins with the last token of the piece before it as context that is not scored. So
    each answer token after the text's first token is scored exactly once.
    """
    length = len(encoded.input_ids)
    if length <= max_tokens:
        return [encoded]
    pieces = []
    for number, start in enumerate(range(0, length - 1, max_tokens - 1)):
        end = start + max_tokens
        uw, gw = encoded.uw[start:end], encoded.gw[start:end]
        if start > 0:
            uw[0] = gw[0] = False
        pieces.append(Encoded(f"{encoded.id}#{number}", encoded.input_ids[start:end], uw, gw))
    return pieces


def collate(items: Sequence[Encoded], index: Sequence[int], pad_id: int) -> Batch:
    """Return encoded texts as a batch, padded to the longest.

    `index`: position of each in the forget set; any number where no reference is cached.
    """
    length = max(len(item.input_ids) for item in items)

    def pad(rows: list[list], fill: Any) -> torch.Tensor:
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    return Batch(
        ids=tuple(item.id for item in items),
        index=torch.tensor(list(index)),
        input_ids=pad([item.input_ids for item in items], pad_id),
        lengths=torch.tensor([len(item.input_ids) for item in items]),
        uw=pad([item.uw for item in items], False),
        gw=pad([item.gw for item in items], False),
    )
