"""`kind: masked_lm`: a word is general where a masked language model predicts it from its context.

Called by `identify` of this room. `GeneralWordRule` decides what counts as predicted.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tif.config.identifier import MaskedLM
from tif.data.samples import Sample
from tif.identifiers import language_models
from tif.identifiers.language_models import LanguageModel, Placement, TokenizedText
from tif.identifiers.windows import ReportWords, Window, label_words, make_windows
from tif.scoring.packing import cut_into_rows

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


def identify_by_masked_lm(
    settings: MaskedLM, samples: Sequence[Sample], placement: Placement
) -> tuple[Sample, ...]:
    """Mask each word of an answer in turn; unwanted is what the model does not predict.

    A word of several pieces is masked whole, and each of its pieces must be predicted. A word that
    the model cannot say (a piece that is the unknown token, characters that its tokenizer drops) is
    not predicted.

    Sources: Zhou et al. 2025 (arXiv 2506.03142) and xzhou98/Unlearning-TPO,
    identification_TOFU.ipynb and identification_MUSE.ipynb. The presets and their differences:

    - `paper`: distilbert-base-uncased, the likeliest word, no threshold; the answer alone is shown.
    - `released-tofu`: as the TOFU notebook was run (threshold 0; its default of 0.9 is never used):
      a blank-separated word with its punctuation is put under a single mask and compared with the
      predicted token as lower-cased text. So a word that is not one token of the vocabulary
      ("Al-Kuwaiti", "born," with its comma, "café" in a vocabulary without accents) is always
      unwanted, which the shipped masks show: each common word has blanks on both sides. They also
      show that only the answer was in sight: words that the question gives away ("full name",
      "Basil") are hardly ever common. Not checked against the notebook itself.
    - `released-muse`: as the MUSE notebook: bert-large-uncased, compared as it stands. An uncased
      model says no capital letter, so a capitalised word is always unwanted.
    - `default` differs from all three: the question is shown too, since a name that it gives away
      is nothing to forget, and words are stripped of attached punctuation, which is general.

    """
    settings = resolve_preset(settings)
    model = language_models.load_language_model(str(settings.model), "masked LM", placement)
    rule = GeneralWordRule(settings, model.tokenizer)

    def text_before(sample: Sample) -> str:
        return f"{sample.prompt} " if settings.context == "prompt" and sample.prompt else ""

    def judge(batch: Sequence[Window], report: ReportWords) -> list[list[bool]]:
        return judge_windows(model, rule, batch, placement.tokens_per_batch, report)

    words_rule = str(settings.words)
    budget = model.text_budget(settings.window_tokens or 0)
    windows = make_windows(samples, text_before, model.count_tokens, budget, words_rule)
    return label_words(samples, windows, judge, "masked LM", words_rule)


Guesses = list[tuple[int, float]]  # token ids and probabilities, the likeliest first


class GeneralWordRule:
    """Decides whether the model's guesses for one piece of a word count as predicting it."""

    def __init__(self, settings: MaskedLM, tokenizer: Any) -> None:
        self.top_k = int(settings.top_k or 1)
        self.threshold = settings.threshold or 0.0
        self.is_exact = settings.case == "exact"
        self.is_one_piece = settings.pieces == "one"
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}  # by token id

    def is_sayable(self, pieces: list[int], tokens: TokenizedText) -> bool:
        """Tell whether the model could predict the word at all; if not, it need not be asked."""
        if not pieces or (len(pieces) > 1 and self.is_one_piece):
            return False
        return all(tokens.ids[t] != self._tokenizer.unk_token_id for t in pieces)

    def is_predicted(self, piece: int, characters: str, guesses: Guesses) -> bool:
        """Tell whether one of the guesses is right and sure enough.

        `piece` is the true token, and `characters` the part of the text that it stands for.
        """
        likely = [token for token, probability in guesses if probability >= self.threshold]
        return any(self._is_same(token, piece, characters.strip()) for token in likely)

    def _is_same(self, guess: int, piece: int, characters: str) -> bool:
        text = self._text_of(guess)
        if self.is_one_piece:  # the notebooks compare text, not tokens
            return text == characters if self.is_exact else text.lower() == characters.lower()
        if self.is_exact:  # a piece that is a blank, or some bytes of a letter, has no case
            stands_as_it_is = text.removeprefix("##") in ("", characters) or "\ufffd" in text
            return guess == piece and stands_as_it_is
        return guess == piece or text.casefold() == self._text_of(piece).casefold()

    def _text_of(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self._tokenizer.decode([token])).strip()
        return self._texts[token]


@dataclasses.dataclass(frozen=True)
class _Question:
    """One word to predict: number `word` of window number `window`, masked at `pieces`."""

    window: int
    word: int
    tokens: TokenizedText
    pieces: list[int]


def judge_windows(
    model: LanguageModel,
    rule: GeneralWordRule,
    windows: Sequence[Window],
    tokens_per_batch: int,
    report: ReportWords,
) -> list[list[bool]]:
    """Return whether each word of each window is unwanted."""
    verdicts = [[True] * len(window.words) for window in windows]
    questions = _make_questions(model, rule, windows)
    questions.sort(key=lambda q: -len(q.tokens.ids))  # longest first: too little memory shows now
    report(sum(map(len, verdicts)) - len(questions))
    lengths = [len(question.tokens.ids) for question in questions]
    with forward_on_masked(model.model) as forward:
        for first, last in cut_into_rows(lengths, tokens_per_batch):
            batch = questions[first:last]
            guesses = _guess_pieces(model, forward, batch, rule.top_k)
            for question, guesses_of_word in zip(batch, guesses, strict=True):
                text = windows[question.window].text
                is_general = _is_predicted(rule, question, text, guesses_of_word)
                verdicts[question.window][question.word] = not is_general
            report(len(batch))
    return verdicts


def _make_questions(
    model: LanguageModel, rule: GeneralWordRule, windows: Sequence[Window]
) -> list[_Question]:
    """Return a question for each word that the model can say."""
    questions = []
    for window_number, window in enumerate(windows):
        tokens = model.tokenize(window.text)
        for word_number, word in enumerate(window.words):
            pieces = tokens.positions_of(word)
            if rule.is_sayable(pieces, tokens):
                questions.append(_Question(window_number, word_number, tokens, pieces))
    return questions


def _is_predicted(
    rule: GeneralWordRule, question: _Question, text: str, guesses: list[Guesses]
) -> bool:
    """Tell whether each piece of the question's word is predicted."""
    for t, guesses_of_piece in zip(question.pieces, guesses, strict=True):
        start, end = question.tokens.offsets[t]
        if not rule.is_predicted(question.tokens.ids[t], text[start:end], guesses_of_piece):
            return False
    return True


# (token ids (B, T), attention mask (B, T), masked positions (B, T) bool) -> logits (K, V)
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _guess_pieces(
    model: LanguageModel, forward: Forward, questions: Sequence[_Question], top_k: int
) -> list[list[Guesses]]:
    """Return, for each question, the likeliest tokens at each of its masked positions."""
    width = max(len(question.tokens.ids) for question in questions)
    ids_BT = torch.full((len(questions), width), model.tokenizer.pad_token_id or 0)
    is_real_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    is_masked_BT = torch.zeros_like(is_real_BT)
    for row, question in enumerate(questions):
        length = len(question.tokens.ids)
        ids_BT[row, :length] = torch.tensor(question.tokens.ids)
        is_real_BT[row, :length] = True
        is_masked_BT[row, question.pieces] = True
    ids_BT[is_masked_BT] = int(model.tokenizer.mask_token_id)
    device = model.model.device
    with torch.no_grad():
        logits_KV = forward(
            ids_BT.to(device), is_real_BT.long().to(device), is_masked_BT.to(device)
        ).float()
    best = logits_KV.topk(min(top_k, logits_KV.shape[1]))
    probabilities = (best.values - logits_KV.logsumexp(1, keepdim=True)).exp()
    tokens_K, probabilities_K = best.indices.tolist(), probabilities.tolist()
    guesses = []
    start = 0
    for question in questions:  # masked positions come row after row
        end = start + len(question.pieces)
        pairs = zip(tokens_K[start:end], probabilities_K[start:end], strict=True)
        guesses.append([list(zip(*pair, strict=True)) for pair in pairs])
        start = end
    return guesses


@contextlib.contextmanager
def forward_on_masked(model: Any) -> Iterator[Forward]:
    """Yield a forward that runs the output matrix on the masked positions only.

    That matrix is a third of distilbert's work, and (B, T, V) logits are most of its memory.
    transformers offers `logits_to_keep` for causal LMs only, so a hook before the matrix takes the
    masked positions. Models whose head is not one matrix at the end give all logits.
    """
    head = model.get_output_embeddings()
    mask: list[torch.Tensor] = []  # of the forward under way

    def take_masked(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTD, is_masked_BT = args[0], mask[0]
        if hidden_BTD.shape[:2] != is_masked_BT.shape:
            return args
        return (hidden_BTD[is_masked_BT], *args[1:])

    def forward(
        ids: torch.Tensor, attention: torch.Tensor, is_masked: torch.Tensor
    ) -> torch.Tensor:
        mask[:] = [is_masked]
        logits = model(input_ids=ids, attention_mask=attention).logits
        return logits if logits.dim() == 2 else logits[is_masked]

    has_matrix = isinstance(head, torch.nn.Module)
    hook = head.register_forward_pre_hook(take_masked) if has_matrix else None
    try:
        yield forward
    finally:
        if hook is not None:
            hook.remove()
