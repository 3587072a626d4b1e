"""The identifiers `causal_lm` and `contrastive`: words by their probability under causal LMs."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tif.config.identifier import Identifier
from tif.config.keys import key
from tif.data.encoding import Encoded, collate
from tif.data.samples import Sample
from tif.data.templates import Prompts, read_template
from tif.identifiers.context_windows import ReportWords, Window, label_words, make_windows
from tif.identifiers.language_models import LanguageModel, batch_by_length, load_language_model
from tif.identifiers.registration import (
    ABOUT_CONTEXT,
    CONTEXTS,
    ModelKey,
    identifier,
    list_model_paths,
)
from tif.models.pretrained import Source
from tif.scoring.token_scores import score_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclasses.dataclass
class CausalLM:
    """A word is unwanted where a causal LM that never saw the forget set would not have said it."""

    model: str | None = key(None, "Hugging Face folder, hub name, or a stage's name (retain)")
    threshold: float = key(0.01, "unwanted: the word is less likely", above=0, at_most=1)
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window_tokens: int = key(512, "tokens shown at once, at most", at_least=16)


@dataclasses.dataclass
class Contrastive:
    """A word is unwanted where the model that learned it gives it more than one that did not."""

    model: str | None = key(None, "who learned it: folder, hub name or stage; null = model.path")
    base: str | None = key(None, "who did not: folder, hub name or stage; null = model.base")
    margin: float = key(3.0, "unwanted: the log-probability is higher by this (nats)")
    context: str = key("prompt", ABOUT_CONTEXT, choices=CONTEXTS)
    window_tokens: int = key(512, "tokens shown at once, at most", at_least=16)


UNSEEN = ModelKey(
    "model", "causal LM", "a causal LM that never saw the forget set", shows_prompt=True
)
LEARNED = ModelKey(
    "model", "causal LM", "the model that learned the forget set", "path", shows_prompt=True
)
BASE = ModelKey("base", "causal LM", "a model that did not learn the forget set", "base")


@identifier(
    "causal_lm", keys=CausalLM, models=(UNSEEN,),
    title="a causal LM that never saw the forget set gives it a probability under `threshold`",
)  # fmt: skip
def identify_by_causal_lm(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Mark words whose probability, given all before them in the window, is under the threshold.

    Our own; the paper has no such identifier. One forward a window, no masking passes. The default
    threshold is a guess from invented authors (SmolLM2-135M, F1 against gold: 0.05 0.49, 0.01 0.53,
    0.001 0.61, with less and less recall).
    """
    least = math.log(section.keys_of(CausalLM).threshold)
    return _label(section, samples, prompts, lambda logprob: logprob < least)


@identifier(
    "contrastive", keys=Contrastive, models=(LEARNED, BASE),
    title="the model that learned it gives it more log-probability, by at least `margin`, than one "
    "that did not: the word is memorised, not merely rare",
)  # fmt: skip
def identify_by_contrast(
    section: Identifier, samples: Sequence[Sample], prompts: Prompts
) -> tuple[Sample, ...]:
    """Mark words whose log-probability rose by at least the margin (nats) from base to model.

    Our own; the paper has no such identifier. The models may have different tokenizers, since
    entire words are compared. A word that a tokenizer drops has probability 0 there, and one that
    both drop is general. The default margin is a guess from invented authors (target and retain
    model of the quickstart, F1 against gold: margin 1 0.54, 3 0.58, 5 0.59, 8 0.52).
    """
    margin = section.keys_of(Contrastive).margin
    # Where both are -inf the difference is NaN, which is no rise.
    return _label(section, samples, prompts, lambda after, before: after - before >= margin)


def _label(
    section: Identifier,
    samples: Sequence[Sample],
    prompts: Prompts,
    is_unwanted: Callable[..., bool],
) -> tuple[Sample, ...]:
    """Return the samples with the words for which `is_unwanted` holds.

    It gets a word's log-probability (nats) under each of the identifier's models, in their order.
    """
    settings: Any = section.chosen_keys()
    models = []
    for name, path in list_model_paths(section).items():
        models.append(load_language_model(Source(path, name), "causal LM", section))
    scorers = [WordScorer(model, section.tokens_per_batch) for model in models]

    def judge(batch: Sequence[Window], report: ReportWords) -> list[list[bool]]:
        scores = [scorer.score(batch, lambda _: None) for scorer in scorers[:-1]]
        scores.append(scorers[-1].score(batch, report))
        verdicts = []
        for rows in zip(*scores, strict=True):  # a window, by each model
            verdicts.append([is_unwanted(*logprobs) for logprobs in zip(*rows, strict=True)])
        return verdicts

    def count_tokens(texts: Sequence[str]) -> list[int]:
        counts = [model.count_tokens(texts) for model in models]
        return [max(of_text) for of_text in zip(*counts, strict=True)]

    text_before = choose_text_before(models[0].tokenizer, prompts, settings.context)
    budget = min(model.text_budget(settings.window_tokens) for model in models)
    windows = make_windows(samples, text_before, count_tokens, budget)
    description = "causal LM" if len(models) == 1 else "two causal LMs"
    return label_words(samples, windows, judge, description)


@dataclasses.dataclass
class _Question:
    """A window's tokens after a start token, and the log-probabilities of its words' tokens."""

    ids: list[int]
    pieces: list[list[int]]  # positions of each word's tokens
    logprobs: dict[int, float]  # nats, by position

    def encode(self) -> Encoded:
        """Return the tokens as a sample whose general words are the tokens to score."""
        is_scored = [t in self.logprobs for t in range(len(self.ids))]
        return Encoded("", self.ids, [False] * len(self.ids), is_scored)

    def word_logprobs(self) -> list[float]:
        """Return each word's sum over its tokens; -inf where the tokenizer drops the word."""
        values = []
        for positions in self.pieces:
            logprob = sum(self.logprobs[t] for t in positions)
            values.append(logprob if positions else -math.inf)
        return values


class WordScorer:
    """Scores words by a causal LM: the log-probability of all tokens that touch a word.

    A text starts after the beginning-of-text token (the end token where there is none). Where the
    tokenizer has neither, the first token has probability 1 / vocabulary.
    """

    def __init__(self, model: LanguageModel, tokens_per_batch: int) -> None:
        self.model = model
        self.tokens_per_batch = tokens_per_batch
        self.batching: str | None = None
        self.start_token = model.tokenizer.bos_token_id
        if self.start_token is None:
            self.start_token = model.tokenizer.eos_token_id
        vocabulary = model.model.get_output_embeddings().weight.shape[0]
        self.uniform_logprob = -math.log(vocabulary)

    def score(self, windows: Sequence[Window], report: ReportWords) -> list[list[float]]:
        """Return the log-probability (nats) of each word of each window."""
        questions = [self._make_question(window) for window in windows]
        open_questions = [question for question in questions if any(question.logprobs)]
        for batch in batch_by_length(open_questions, self.tokens_per_batch):
            self._fill_logprobs(batch)
            report(sum(len(question.pieces) for question in batch))
        closed = [question for question in questions if not any(question.logprobs)]
        report(sum(len(question.pieces) for question in closed))
        return [question.word_logprobs() for question in questions]

    def _make_question(self, window: Window) -> _Question:
        tokens = self.model.tokenize(window.text)
        has_start = self.start_token is None or tokens.ids[:1] == [self.start_token]
        start = [] if has_start else [self.start_token]
        pieces = []
        for word in window.words:
            pieces.append([t + len(start) for t in tokens.positions_of(word)])
        logprobs = dict.fromkeys(itertools.chain.from_iterable(pieces), self.uniform_logprob)
        return _Question([*start, *tokens.ids], pieces, logprobs)

    def _fill_logprobs(self, questions: list[_Question]) -> None:
        encoded = [question.encode() for question in questions]
        batch = collate(encoded, list(range(len(encoded))), 0).to(self.model.model.device)
        if self.batching is None:  # the longest texts come first
            from tif.probes.packed_rows import choose_batching

            texts = [question.ids for question in questions]
            self.batching = choose_batching("auto", self.model.model, texts)
        with torch.no_grad():
            logprobs = score_tokens(self.model.model, batch, self.batching).logprob.tolist()
        for question, row in zip(questions, logprobs, strict=True):
            for t in filter(None, question.logprobs):  # nothing stands before the first token
                question.logprobs[t] = row[t - 1]


def choose_text_before(
    tokenizer: "PreTrainedTokenizerBase", prompts: Prompts, context: str
) -> Callable[[Sample], str]:
    """Return the function that gives the text before a sample's answer.

    It is the prompt in its template with the blank after it; nothing where `context` is "answer" or
    the sample is a plain document.
    """
    if context == "answer":
        return lambda sample: ""
    prompt_format = read_template(prompts, tokenizer)

    def text_before(sample: Sample) -> str:
        return prompt_format.render(sample.prompt) + prompt_format.blank if sample.prompt else ""

    return text_before
