"""Check and load the language models of `masked_lm` and `causal_lm`; map words to their tokens."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tif.config.errors import ConfigError
from tif.config.identifier import Identifier
from tif.data.samples import Span
from tif.data.templates import Prompts, read_template
from tif.models.pretrained import Source, check_model, load_model, load_tokenizer
from tif.scoring.packing import cut_into_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Q = TypeVar("Q", bound=Any)
SPARE_TOKENS = 8  # a text may have a few tokens more than its sentences have together
NO_LIMIT = 1_000_000
# Position 0 of these models is number pad_token_id + 1 of their table.
_SHIFTED_POSITIONS = (
    "roberta", "camembert", "mpnet", "longformer", "xmod", "luke", "ibert", "data2vec-text",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TokenizedText:
    """Token ids of a text with special tokens, and the tokens' (start, end) in the text."""

    ids: list[int]
    offsets: list[tuple[int, int]]  # empty for special tokens

    def positions_of(self, word: Span) -> list[int]:
        """Return the positions of the word's tokens; none if the tokenizer drops it."""
        positions = []
        for t, (start, end) in enumerate(self.offsets):
            if start < end and start < word.end and end > word.start:
                positions.append(t)
        return positions


@dataclasses.dataclass
class LanguageModel:
    """A model with its tokenizer."""

    model: "PreTrainedModel"  # in evaluation mode, on its device
    tokenizer: "PreTrainedTokenizerBase"  # a fast one, which gives character offsets
    context_length: int  # tokens that the model can see at once, special tokens included

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def text_budget(self, window_tokens: int) -> int:
        """Return the tokens of text that a window of so many tokens holds, as the model can see."""
        special = self.tokenizer.num_special_tokens_to_add()
        return max(8, min(window_tokens, self.context_length) - special - SPARE_TOKENS)

    def tokenize(self, text: str) -> TokenizedText:
        """Return the text's tokens; windows are cut to fit, so the context length cuts nothing."""
        limits = {"truncation": True, "max_length": self.context_length - 1, "verbose": False}
        encoded = self.tokenizer(text, return_offsets_mapping=True, **limits)
        offsets = [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
        return TokenizedText(list(encoded["input_ids"]), offsets)


def check_language_model(source: Source, kind: str, prompts: Prompts = "") -> None:
    """Raise ConfigError unless it is a model with a tokenizer that identifiers can use.

    Args:
        source: the model.
        kind: "masked LM" or "causal LM".
        prompts: the prompt format in which it is shown questions; "" = it is shown none.
    """
    from tif.probes.small_copy import RowSettings, check_small_copy

    model = check_model(source, kind)
    if kind == "causal LM":
        check_small_copy(model, RowSettings(), source.key)
    tokenizer, problem = load_tokenizer(source), None
    if not tokenizer.is_fast:
        problem = "its tokenizer gives no character offsets"
    elif kind == "masked LM" and tokenizer.mask_token_id is None:
        problem = "its tokenizer has no mask token"
    if problem:
        unusable = f"{source.path} is no {kind} that can be used here ({problem})"
        raise ConfigError(f"{source.key}: {unusable}")
    read_template(prompts, tokenizer)


def load_language_model(source: Source, kind: str, identifier: Identifier) -> LanguageModel:
    """Return the model (a "masked LM" or a "causal LM"), where and in the dtype that is wanted."""
    device: Any = identifier.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(source, kind, dtype=getattr(torch, identifier.dtype))
    model.eval().requires_grad_(False).to(device)
    tokenizer = load_tokenizer(source)
    return LanguageModel(model, tokenizer, find_context_length(model.config, tokenizer))


def find_context_length(config: Any, tokenizer: Any) -> int:
    """Return the tokens that a model can see at once; NO_LIMIT where nothing says how many."""
    positions = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    if any(name in str(config.model_type) for name in _SHIFTED_POSITIONS):
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length, NO_LIMIT))


def batch_by_length(questions: Sequence[Q], tokens_per_batch: int) -> Iterator[list[Q]]:
    """Yield batches of what has token `ids`, the longest first: lack of memory shows now."""
    in_order = sorted(questions, key=lambda question: -len(question.ids))
    for first, last in cut_into_rows([len(q.ids) for q in in_order], tokens_per_batch):
        yield in_order[first:last]
