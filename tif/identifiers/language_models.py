"""The language models that identifiers ask, with their tokenizers: found, checked and loaded here."""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tif.config.errors import one_line
from tif.config.schema import Identifier
from tif.data.samples import Span
from tif.models.load import check_hugging_face_model, resolve_model_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPARE = 8  # tokens left free: a text's tokens may be a few more than its sentences' tokens together
# Position 0 of these models is number pad_token_id + 1 of their table.
_SHIFTED = ("roberta", "camembert", "mpnet", "longformer", "xmod", "luke", "ibert", "data2vec-text")


@dataclasses.dataclass
class Reader:
    """A model with its tokenizer.

    Attributes:
        model: in evaluation mode, on its device.
        limit: tokens that it can see at once, special tokens included.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    limit: int

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text, without special tokens."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def budget(self, window: int) -> int:
        """Tokens of text for `window` tokens, as far as the model can see."""
        return max(8, min(window, self.limit) - self.tokenizer.num_special_tokens_to_add() - SPARE)

    def read(self, text: str) -> "Tokens":
        """The text's tokens; what is beyond the model's limit (windows are cut to fit) is left out."""
        found = self.tokenizer(
            text, return_offsets_mapping=True, truncation=True, max_length=self.limit - 1, verbose=False
        )
        return Tokens(list(found["input_ids"]), [tuple(o) for o in found["offset_mapping"]])


class Tokens:
    """Token ids, and which of them make a word.

    Attributes:
        ids: token ids, with the tokenizer's special tokens.
        offsets: (start, end) of each token in the text; empty for special tokens.
    """

    def __init__(self, ids: list[int], offsets: list[tuple[int, int]]) -> None:
        self.ids, self.offsets = ids, offsets
        self._real = [t for t, (start, end) in enumerate(offsets) if start < end]
        self._ends = [offsets[t][1] for t in self._real]

    def of(self, word: Span) -> list[int]:
        """Positions of the tokens that touch the word; none where the tokenizer drops its characters."""
        found = []
        for t in self._real[bisect.bisect_right(self._ends, word.start) :]:
            if self.offsets[t][0] >= word.end:
                break
            found.append(t)
        return found


def check(key: str, path: str, masked: bool) -> None:
    """Stop before weights load where `path` is no model of the kind.

    Args:
        key: the configuration key, for the message.
        path: Hugging Face folder or hub name.
        masked: a masked LM is wanted, else a causal one.

    Raises:
        ValueError: One line naming the key.
    """
    kind = "masked LM" if masked else "causal LM"
    check_hugging_face_model(path, key, kind)
    problem = _tokenizer_problem(path, masked)
    if problem:
        raise ValueError(f"{key}: {path} is no {kind} that can be used here ({problem})")


def _tokenizer_problem(path: str, masked: bool) -> str | None:
    """Return why the tokenizer at `path` cannot serve; None = it can."""
    try:
        own = tokenizer(path)
    except (OSError, ValueError, TypeError, RuntimeError, LookupError, ImportError) as error:
        return one_line(error)
    if not own.is_fast:
        return "its tokenizer gives no character offsets"
    if masked and own.mask_token_id is None:
        return "its tokenizer has no mask token"
    return None


def load(path: str, masked: bool, cfg: Identifier) -> Reader:
    """The model at `path`, ready to be asked; `cfg` says where it runs and in which dtype."""
    device = cfg.device if cfg.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = _auto(masked).from_pretrained(
        resolve_model_path(path), dtype=getattr(torch, cfg.dtype), use_safetensors=True
    )
    model.eval().requires_grad_(False).to(device)
    own = tokenizer(path)
    return Reader(model, own, limit(model.config, own))


def limit(config: Any, tokenizer: Any) -> int:
    """Tokens that a model can see at once, as its config and its tokenizer say; a million where neither does."""
    positions = getattr(config, "max_position_embeddings", None) or 1_000_000
    if any(name in str(config.model_type) for name in _SHIFTED):
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, tokenizer.model_max_length, 1_000_000))


def _auto(masked: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    return AutoModelForMaskedLM if masked else AutoModelForCausalLM


def tokenizer(path: str) -> Any:
    """The tokenizer at `path`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve_model_path(path))
