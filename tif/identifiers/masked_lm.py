"""The identifier `masked_lm`: a word is general where a masked LM predicts it from its context.

`_Judge` decides what counts as predicted.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from tif.config.identifier import Identifier
from tif.config.keys import key
from tif.data.samples import Sample
from tif.data.templates import Prompts
from tif.identifiers.context_windows import ReportWords, Window, label_words, make_windows
from tif.identifiers.language_models import (
    LanguageModel,
    TokenizedText,
    batch_by_length,
    load_language_model,
)
from tif.identifiers.registration import ABOUT_CONTEXT, CONTEXTS, ModelKey, identifier
from tif.models.pretrained import Source


@dataclasses.dataclass
class MaskedLM:
    """A word is general where a masked LM predicts it. null = what `preset` says."""

    preset: str = key("default", "values of the keys that are null (released-tofu: the notebooks' "
        "rules)", choices=("default", "paper", "released-tofu", "released-muse"))
    model: str | None = key(None, "folder or hub name; default: distilbert-base-uncased")
    top_k: int | None = key(None, "general: among the k likeliest; default: 1", at_least=1)
    threshold: float | None = key(None, "general: predicted with at least this probability; "
        "default: 0", at_least=0, at_most=1)
    case: str | None = key(None, "fold (upper and lower case are the same) or exact; default: fold",
        choices=("fold", "exact"))
    words: str | None = key(None, "unicode (without attached punctuation, any script) or blanks "
        "(what stands between blanks); default: unicode", choices=("unicode", "blanks"))
    pieces: str | None = key(None, "a word of several pieces: whole (all masked, all must be "
        "predicted) or one (never general); default: whole", choices=("whole", "one"))
    context: str | None = key(None, f"{ABOUT_CONTEXT}; default: prompt", choices=CONTEXTS)
    window_tokens: int | None = key(None, "tokens shown at once, at most; default: 128, released: "
        "512", at_least=16)


_DEFAULT = {
    "model": "distilbert-base-uncased", "top_k": 1, "threshold": 0.0, "case": "fold",
    "words": "unicode", "pieces": "whole", "context": "prompt", "window_tokens": 128,
}  # fmt: skip
_RELEASED = _DEFAULT | {
    "words": "blanks", "pieces": "one", "context": "answer", "window_tokens": 512,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "paper": _DEFAULT | {"context": "answer"},
    "released-tofu": _RELEASED,
    "released-muse": _RELEASED | {"model": "bert-large-uncased", "case": "exact"},
}


def resolve_preset(settings: MaskedLM) -> MaskedLM:
    """Return the section with no null left: the preset's values where a key gives none."""
    given = {k: value for k, value in dataclasses.asdict(settings).items() if value is not None}
    return MaskedLM(**PRESETS[settings.preset] | given)


def _describe(section: Identifier) -> dict[str, Any]:
    return dataclasses.asdict(resolve_preset(section.keys_of(MaskedLM)))


@identifier(
    "masked_lm", title="a masked LM does not predict it from the words around it", keys=MaskedLM,
    models=(ModelKey("model", "masked LM"),), describe=_describe,
)  # fmt: skip
def identify_by_masked_lm(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Mask each word of an answer in turn; unwanted is what the model does not predict.

    A word of several pieces is masked whole, and each of its pieces must be predicted. A word that
    the vocabulary lacks (unknown token, characters that the tokenizer drops) is not predicted.

    Sources: Zhou et al. 2025 (arXiv 2506.03142) and xzhou98/Unlearning-TPO,
    identification_TOFU.ipynb and identification_MUSE.ipynb. The presets and their differences:

    - `paper`: distilbert-base-uncased, the likeliest word, no threshold; the answer alone is shown.
    - `released-tofu`: as the TOFU notebook was run (threshold 0; its default of 0.9 is never used):
      a blank-separated word with its punctuation is put under a single mask and compared with the
      predicted token as lower-cased text. So a word that is not one token of the vocabulary
      ("Al-Kuwaiti", "born," with its comma, "café" in a vocabulary without accents) is always
      unwanted, which the shipped masks show: each common word has blanks on both sides. They also
      show that the question was not shown: words that it gives away ("full name", "Basil") are
      hardly ever common. Not checked against the notebook itself.
    - `released-muse`: as the MUSE notebook: bert-large-uncased, compared as it stands. An uncased
      model says no capital letter, so a capitalised word is always unwanted.
    - `default` differs from all three: the question is shown too, since a name that it gives away
      is nothing to forget, and words are stripped of attached punctuation, which is general.
    """
    settings = resolve_preset(section.keys_of(MaskedLM))
    source = Source(str(settings.model), "identifier.masked_lm.model")
    model = load_language_model(source, "masked LM", section)
    judge = _Judge(model, settings, section.tokens_per_batch)

    def text_before(sample: Sample) -> str:
        return f"{sample.prompt} " if settings.context == "prompt" and sample.prompt else ""

    words_rule = str(settings.words)
    budget = model.text_budget(settings.window_tokens or 0)
    windows = make_windows(samples, text_before, model.count_tokens, budget, words_rule)
    return label_words(samples, windows, judge.judge, "masked LM", words_rule)


Guesses = list[tuple[int, float]]  # token ids and probabilities, the likeliest first


@dataclasses.dataclass
class _Question:
    """A word of a text to predict, masked at the positions `pieces`."""

    text: str
    tokens: TokenizedText
    pieces: list[int]
    is_general: bool = False

    @property
    def ids(self) -> list[int]:
        """The token ids of the text, nothing masked."""
        return self.tokens.ids


class _Judge:
    """Decides whether the model's guesses for the pieces of a word count as predicting it."""

    def __init__(self, model: LanguageModel, settings: MaskedLM, tokens_per_batch: int) -> None:
        self.model, self.settings, self.tokens_per_batch = model, settings, tokens_per_batch
        self._texts: dict[int, str] = {}  # by token id

    def judge(self, windows: Sequence[Window], report: ReportWords) -> list[list[bool]]:
        """Return whether each word of each window is unwanted."""
        by_window: list[list[_Question]] = []
        for window in windows:
            tokens = self.model.tokenize(window.text)
            pieces_of_words = [tokens.positions_of(word) for word in window.words]
            by_window.append([_Question(window.text, tokens, ts) for ts in pieces_of_words])
        questions = list(itertools.chain.from_iterable(by_window))
        sayable = [question for question in questions if self._is_sayable(question)]
        report(len(questions) - len(sayable))
        for batch in batch_by_length(sayable, self.tokens_per_batch):
            guesses = iter(self._guess_pieces(batch))  # masked positions come row after row
            for question in batch:
                for_word = itertools.islice(guesses, len(question.pieces))
                question.is_general = self._is_general(question, list(for_word))
            report(len(batch))
        return [[not question.is_general for question in questions] for questions in by_window]

    def _is_sayable(self, question: _Question) -> bool:
        """Tell whether the vocabulary has the word's pieces, so that the model can predict it."""
        if not question.pieces or (len(question.pieces) > 1 and self.settings.pieces == "one"):
            return False
        unknown = self.model.tokenizer.unk_token_id
        return all(question.ids[t] != unknown for t in question.pieces)

    def _is_general(self, question: _Question, guesses: Sequence[Guesses]) -> bool:
        """Tell whether each piece is among the model's guesses for it, likely enough."""
        for t, guesses_of_piece in zip(question.pieces, guesses, strict=True):
            start, end = question.tokens.offsets[t]
            piece, characters = question.ids[t], question.text[start:end].strip()
            likely = [token for token, p in guesses_of_piece if p >= (self.settings.threshold or 0)]
            if not any(self._is_same(token, piece, characters) for token in likely):
                return False
        return True

    def _is_same(self, guess: int, piece: int, characters: str) -> bool:
        text, is_exact = self._text_of(guess), self.settings.case == "exact"
        if self.settings.pieces == "one":  # the notebooks compare text, not tokens
            return text == characters if is_exact else text.lower() == characters.lower()
        if is_exact:  # a piece that is a blank, or some bytes of a letter, has no case
            stands_as_it_is = text.removeprefix("##") in ("", characters) or "\ufffd" in text
            return guess == piece and stands_as_it_is
        return guess == piece or text.casefold() == self._text_of(piece).casefold()

    def _text_of(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self.model.tokenizer.decode([token])).strip()
        return self._texts[token]

    def _guess_pieces(self, questions: Sequence[_Question]) -> list[Guesses]:
        """Return the likeliest tokens at each masked position of the questions."""
        pad = self.model.tokenizer.pad_token_id or 0
        rows = [torch.tensor(question.ids) for question in questions]
        ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        is_masked_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        attention_BT = torch.zeros_like(ids_BT)
        for row, question in enumerate(questions):
            attention_BT[row, : len(question.ids)] = 1
            is_masked_BT[row, question.pieces] = True
        ids_BT[is_masked_BT] = int(self.model.tokenizer.mask_token_id)
        device = self.model.model.device
        inputs = [tensor.to(device) for tensor in (ids_BT, attention_BT, is_masked_BT)]
        with torch.no_grad():
            logits_KV = masked_logits(self.model.model, *inputs).float()
        best = logits_KV.topk(min(self.settings.top_k or 1, logits_KV.shape[1]))
        probabilities = (best.values - logits_KV.logsumexp(1, keepdim=True)).exp().tolist()
        pairs = zip(best.indices.tolist(), probabilities, strict=True)
        return [list(zip(tokens, chances, strict=True)) for tokens, chances in pairs]


def masked_logits(
    model: Any, ids_BT: torch.Tensor, attention_BT: torch.Tensor, is_masked_BT: torch.Tensor
) -> torch.Tensor:
    """Return the logits (K, V) of the masked positions; the output matrix runs on them only.

    That matrix is a third of distilbert's work, and (B, T, V) logits are most of its memory.
    transformers offers `logits_to_keep` for causal LMs only, so a hook before the matrix takes the
    masked positions. Models whose head is not one matrix at the end give all logits.
    """

    def take_masked(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if args[0].shape[:2] != is_masked_BT.shape:
            return args
        return (args[0][is_masked_BT], *args[1:])

    head = model.get_output_embeddings()
    has_matrix = isinstance(head, torch.nn.Module)
    hook = head.register_forward_pre_hook(take_masked) if has_matrix else contextlib.nullcontext()
    with hook:  # removed at the end
        logits = model(input_ids=ids_BT, attention_mask=attention_BT).logits
    return logits if logits.dim() == 2 else logits[is_masked_BT]
