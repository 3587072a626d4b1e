"""`causal_lm`: a word is unwanted where a language model that never saw it would not have said it."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from tif.config.schema import Identifier
from tif.data.encoding import Encoded, collate
from tif.data.samples import Sample
from tif.identifiers.language_models import Reader, Tokens, load
from tif.identifiers.windows import Done, Window, label, windows
from tif.scoring.batching import choose_batching
from tif.scoring.packing import cut_into_rows
from tif.scoring.token_scores import score_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def causal_lm(cfg: Identifier, samples: Sequence[Sample], template: str) -> tuple[Sample, ...]:
    """Unwanted is a word whose probability, given all before it in the window, is under the threshold.

    Our own; the paper has no such identifier. One forward a window, no masking passes. The default threshold is a guess
    from invented authors (SmolLM2-135M, F1 against gold: 0.05 0.49, 0.01 0.53, 0.001 0.61, with less and less recall).

    Args:
        cfg: sections `identifier` and `identifier.causal_lm`.
        samples: whose answers are labelled.
        template: as `data.template`.
    """
    own, reader = cfg.causal_lm, load(str(cfg.causal_lm.model), False, cfg)
    score, least = scorer(reader, cfg.tokens_per_batch), math.log(own.threshold)

    def judge(batch: Sequence[Window], done: Done) -> list[list[bool]]:
        return [[logprob < least for logprob in row] for row in score(batch, done)]

    found = windows(
        samples,
        before(reader.tokenizer, template, own.context),
        reader.count,
        reader.budget(own.window_tokens),
        "unicode",
    )
    return label(samples, found, judge, "causal LM")


Score = Callable[[Sequence[Window], Done], list[list[float]]]


def scorer(reader: Reader, tokens_per_batch: int) -> Score:
    """Windows to the log-probability (nats) of each word: the sum over all tokens that touch it."""
    batching = choose_batching("auto", reader.model)

    def score(batch: Sequence[Window], done: Done) -> list[list[float]]:
        read = [reader.read(w.text) for w in batch]
        pieces = [[own.of(word) for word in window.words] for window, own in zip(batch, read, strict=True)]
        logprobs = _logprobs(reader, read, [{t for word in own for t in word} for own in pieces], tokens_per_batch,
                             batching, lambda which: done(sum(len(batch[i].words) for i in which)))  # fmt: skip
        return [[sum(own[t] for t in word) if word else -math.inf for word in words]
                for words, own in zip(pieces, logprobs, strict=True)]  # fmt: skip

    return score


def _logprobs(
    reader: Reader,
    read: Sequence[Tokens],
    wanted: Sequence[Iterable[int]],
    tokens_per_batch: int,
    batching: str,
    done: Callable[[Iterable[int]], None],
) -> list[dict[int, float]]:
    """Log-probability of each wanted token of each text, by position; `done` is told which texts are read.

    A text starts after the beginning-of-text token (the end token where there is none); a model that has neither says
    1 / vocabulary about a first token.
    """
    start, uniform = _start(reader.tokenizer), -math.log(reader.model.get_output_embeddings().weight.shape[0])
    found: list[dict[int, float]] = [{} for _ in read]
    items: dict[int, tuple[Encoded, int]] = {}
    for i, (own, positions) in enumerate(zip(read, wanted, strict=True)):
        chosen = set(positions)
        add = start if start is not None and own.ids[:1] != [start] else None
        ids = own.ids if add is None else [add, *own.ids]
        marks = ([] if add is None else [False]) + [t in chosen for t in range(len(own.ids))]
        found[i] = {t: uniform for t in chosen}
        if any(marks[1:]):
            items[i] = Encoded(str(i), ids, [False] * len(ids), marks), len(ids) - len(own.ids)
    done(i for i in range(len(read)) if i not in items)
    order = sorted(items, key=lambda i: -len(items[i][0].input_ids))
    for first, last in cut_into_rows([len(items[i][0].input_ids) for i in order], tokens_per_batch):
        part = order[first:last]
        batch = collate([items[i][0] for i in part], part, 0).to(reader.model.device)
        with torch.no_grad():
            scores = score_tokens(reader.model, batch, batching).logprob.tolist()
        for i, row in zip(part, scores, strict=True):
            encoded, added = items[i]
            found[i] |= {t - added: row[t - 1] for t, wanted_here in enumerate(encoded.gw) if wanted_here and t}
        done(part)
    return found


def _start(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return None


def before(tokenizer: "PreTrainedTokenizerBase", template: str, context: str) -> Callable[[Sample], str]:
    """What stands before an answer: the prompt in its template with the blank after it; nothing for plain documents."""

    def text(sample: Sample) -> str:
        if context == "answer" or not sample.prompt:
            return ""
        if template != "chat":
            return template.replace("{prompt}", sample.prompt) + " "
        message = [{"role": "user", "content": sample.prompt}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    return text
