"""`masked_lm`: a word is general where a masked language model predicts it from the words around it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tif.config.identifier import MaskedLM
from tif.config.schema import Identifier
from tif.data.samples import Sample
from tif.identifiers.language_models import Reader, Tokens, load
from tif.identifiers.windows import Done, Window, label, windows
from tif.scoring.packing import cut_into_rows

_DEFAULT = {
    "model": "distilbert-base-uncased", "top_k": 1, "threshold": 0.0, "case": "fold", "words": "unicode",
    "pieces": "whole", "context": "prompt", "window_tokens": 128,
}  # fmt: skip
_RELEASED = _DEFAULT | {"words": "blanks", "pieces": "one", "context": "answer", "window_tokens": 512}
PRESETS: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "paper": _DEFAULT | {"context": "answer"},
    "released-tofu": _RELEASED,
    "released-muse": _RELEASED | {"model": "bert-large-uncased", "case": "exact"},
}


def resolved(cfg: MaskedLM) -> MaskedLM:
    """The section with no null left: the preset's values where a key gives none."""
    own = {name: value for name, value in dataclasses.asdict(cfg).items() if value is not None}
    return MaskedLM(**PRESETS[cfg.preset] | own)


def masked_lm(cfg: Identifier, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Mask one word of the answer at a time; unwanted is what the model does not predict.

    A word of several pieces is masked whole, and each of its pieces must be predicted. What the model cannot say (a
    piece that is the unknown token, characters that its tokenizer drops) is not predicted.

    Sources: Zhou et al. 2025 (arXiv 2506.03142) and xzhou98/Unlearning-TPO, identification_TOFU.ipynb and
    identification_MUSE.ipynb. The presets and what they own up to:

    - `paper`: distilbert-base-uncased, the likeliest word, no threshold; the answer alone is shown.
    - `released-tofu`: as the TOFU notebook was run (threshold 0; its default of 0.9 is never used): a blank-separated
      word with its punctuation is put under a single mask and compared with the predicted token as lower-cased text.
      So a word that is not one token of the vocabulary ("Al-Kuwaiti", "born," with its comma, "café" in a vocabulary
      without accents) is always unwanted, which the shipped masks show: each common word has blanks on both sides.
      They also show that only the answer was in sight: words that the question gives away ("full name", "Basil") are
      hardly ever common. Not checked against the notebook itself.
    - `released-muse`: as the MUSE notebook: bert-large-uncased, compared as it stands. An uncased model says no capital
      letter, so a capitalised word is always unwanted.
    - `default` differs from all three: the question is shown too, since a name that it gives away is nothing to
      forget, and words are stripped of attached punctuation, which is general.

    Args:
        cfg: sections `identifier` and `identifier.masked_lm`.
        samples: whose answers are labelled.
    """
    own, reader = resolved(cfg.masked_lm), load(str(resolved(cfg.masked_lm).model), True, cfg)
    asked = own.context == "prompt"
    found = windows(
        samples,
        lambda s: f"{s.prompt} " if asked and s.prompt else "",
        reader.count,
        reader.budget(own.window_tokens or 0),
        str(own.words),
    )
    predicts = Predicts(reader, own)
    return label(
        samples,
        found,
        lambda batch, done: judge(reader, predicts, batch, cfg.tokens_per_batch, done),
        "masked LM",
        str(own.words),
    )


class _Masked(NamedTuple):
    """One question to the model: the word `word` of window `window`, at the positions `pieces` of its tokens."""

    window: int
    word: int
    pieces: list[int]


def judge(
    reader: Reader, predicts: "Predicts", batch: Sequence[Window], tokens_per_batch: int, done: Done
) -> list[list[bool]]:
    """Whether each word of each window is unwanted."""
    tokens = [reader.read(w.text) for w in batch]
    verdicts = [[True] * len(w.words) for w in batch]
    asked = [
        _Masked(i, k, pieces)
        for i, window in enumerate(batch)
        for k, word in enumerate(window.words)
        if predicts.can(pieces := tokens[i].of(word), tokens[i])
    ]
    asked.sort(key=lambda m: -len(tokens[m.window].ids))  # longest first: too little memory shows at once
    done(sum(map(len, verdicts)) - len(asked))
    with only_masked(reader.model) as forward:
        for first, last in cut_into_rows([len(tokens[m.window].ids) for m in asked], tokens_per_batch):
            part = asked[first:last]
            guesses = iter(_guesses(reader, forward, [(tokens[m.window].ids, m.pieces) for m in part], predicts.top_k))
            for m in part:
                text, own = batch[m.window].text, tokens[m.window]
                verdicts[m.window][m.word] = not all(
                    [predicts(own.ids[t], text[slice(*own.offsets[t])], next(guesses)) for t in m.pieces]
                )
            done(len(part))
    return verdicts


Guess = list[tuple[int, float]]  # token ids and probabilities, the likeliest first


class Predicts:
    """The rule: whether the model's guesses for one piece of a word hold that piece."""

    def __init__(self, reader: Reader, own: MaskedLM) -> None:
        self.own, self.top_k, self.unknown = own, int(own.top_k or 1), reader.tokenizer.unk_token_id
        self._tokenizer, self._texts = reader.tokenizer, dict[int, str]()

    def can(self, pieces: list[int], tokens: Tokens) -> bool:
        """Whether the model could predict the word at all; if not, it need not be asked."""
        several = len(pieces) > 1 and self.own.pieces == "one"
        return bool(pieces) and not several and all(tokens.ids[t] != self.unknown for t in pieces)

    def __call__(self, piece: int, characters: str, guess: Guess) -> bool:
        """Args: the true piece, the characters of the text that it stands for, the model's guesses."""
        return any(p >= (self.own.threshold or 0) and self._same(token, piece, characters) for token, p in guess)

    def _same(self, guessed: int, piece: int, characters: str) -> bool:
        characters, text = characters.strip(), self._text(guessed)
        exact = self.own.case == "exact"
        if self.own.pieces == "one":
            return text == characters if exact else text.lower() == characters.lower()
        if exact:  # a piece that is a blank, or some bytes of a letter, has no case
            return guessed == piece and (text.removeprefix("##") in ("", characters) or "\ufffd" in text)
        return guessed == piece or text.casefold() == self._text(piece).casefold()

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self._tokenizer.decode([token])).strip()
        return self._texts[token]


def _guesses(reader: Reader, forward: "Forward", asked: Sequence[tuple[list[int], list[int]]], k: int) -> list[Guess]:
    """The k likeliest tokens at each masked position, row after row.

    Args:
        reader: the masked LM.
        forward: its forward, on masked positions only.
        asked: token ids and the positions to mask.
        k: guesses for each position.
    """
    width, pad = max(len(ids) for ids, _ in asked), reader.tokenizer.pad_token_id or 0
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in asked])
    real = torch.arange(width) < torch.tensor([[len(ids)] for ids, _ in asked])
    masked = torch.zeros_like(real)
    for row, (_, pieces) in enumerate(asked):
        masked[row, pieces] = True
    ids[masked] = int(reader.tokenizer.mask_token_id)
    device = reader.model.device
    with torch.no_grad():
        logits = forward(ids.to(device), real.long().to(device), masked.to(device)).float()
    best = logits.topk(min(k, logits.shape[1]))
    chances = (best.values - logits.logsumexp(1, keepdim=True)).exp()
    return [list(zip(*row, strict=True)) for row in zip(best.indices.tolist(), chances.tolist(), strict=True)]


Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def only_masked(model: Any) -> Iterator[Forward]:
    """A forward that runs the output matrix on the masked positions only: (ids, attention mask, masked) -> (K, V).

    A third of distilbert's work is that matrix, and (B, T, V) logits are most of its memory. Models whose head is not
    one matrix at the end give all logits, of which the masked ones are taken.
    """
    head, here = model.get_output_embeddings(), dict[str, torch.Tensor]()

    def narrow(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][here["masked"]], *args[1:]) if args[0].shape[:2] == here["masked"].shape else args

    def forward(ids: torch.Tensor, attention: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        here["masked"] = masked
        logits = model(input_ids=ids, attention_mask=attention).logits
        return logits if logits.dim() == 2 else logits[masked]

    hook = head.register_forward_pre_hook(narrow) if isinstance(head, torch.nn.Module) else None
    try:
        yield forward
    finally:
        if hook is not None:
            hook.remove()
