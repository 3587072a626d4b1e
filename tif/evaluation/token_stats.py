"""Texts to numbers of each of their answer tokens: what an evaluation needs of a model beside its generations.

Shapes: K answer tokens of some texts, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence

import torch

from tif.data.encoding import Encoded
from tif.records.types import TokenStats
from tif.scoring.shared_prompts import answer_logits
from tif.scoring.token_scores import ModelContext

CHUNK = 256  # answer tokens whose float32 distributions are held at once


@dataclasses.dataclass(frozen=True)
class Answer:
    """One scored text.

    Attributes:
        loss: mean negative log-likelihood of an answer token, in nats.
        tokens: how many answer tokens that is the mean of (with the end token, where it is scored).
        stats: of each of them, where asked for.
    """

    loss: float
    tokens: int
    stats: TokenStats | None = None


def score(
    model: torch.nn.Module,
    groups: Sequence[Sequence[Encoded]],
    detailed: Sequence[bool],
    batching: str,
    pad_id: int,
    original: ModelContext | None = None,
) -> list[Answer]:
    """Score the texts of one forward.

    Args:
        model: a Hugging Face causal LM.
        groups: texts that share a prompt, see scoring.answer_logits; every text has an answer token at a position > 0.
        detailed: for each text, in order, whether its `stats` are wanted.
        batching: "packed" or "padded".
        pad_id: padding's id.
        original: opens the model that `stats.kl` compares with, on the same device; None = no KL.

    Returns:
        One Answer a text, group by group. Float32 whatever the model's dtype.
    """
    scored = answer_logits(model, groups, batching, pad_id)
    logits, targets, counts = scored.logits, scored.targets, scored.counts
    other, asked = None, iter(detailed)
    if original is not None and (own := [some for texts in groups if (some := [e for e in texts if next(asked)])]):
        with original() as original_model:
            other = answer_logits(original_model, own, batching, pad_id).logits
    wanted = torch.tensor(list(detailed)).repeat_interleave(torch.tensor(counts)).to(logits.device)
    logprob, details = _by_chunks(logits, targets, other, wanted)
    sums = [part.sum().item() for part in logprob.double().split(counts)]
    parts = iter(details.split([n for n, asked in zip(counts, detailed, strict=True) if asked]))
    stats = [_stats(next(parts)) if asked else None for asked in detailed]
    return [Answer(-total / n, n, s) for total, n, s in zip(sums, counts, stats, strict=True)]


def _by_chunks(
    logits: torch.Tensor, targets: torch.Tensor, other: torch.Tensor | None, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(K,) log-probabilities, and the columns of `_details` for the wanted tokens, on the CPU."""
    logprobs, details, done = [], [], 0  # `other` has rows for the wanted tokens only
    for start in range(0, len(targets), CHUNK):
        rows = slice(start, start + CHUNK)
        scores, ids, asked = logits[rows].float(), targets[rows], wanted[rows]
        logprobs.append(scores.gather(1, ids[:, None])[:, 0] - scores.logsumexp(1))
        if asked.any():
            count = int(asked.sum())
            before = other[done : done + count].float() if other is not None else None
            done += count
            details.append(_details(scores[asked], ids[asked], before).cpu())
    return torch.cat(logprobs).cpu(), torch.cat(details) if details else torch.empty(0, 5)


def _details(logits: torch.Tensor, targets: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """(K, V) float32 logits -> (K, 5): log-probability, argmax or not, mean, standard deviation, KL (NaN: no other)."""
    logp = logits.log_softmax(1)
    p = logp.exp()
    mean = _weighed(p, logp)
    variance = _weighed(p, (logp - mean[:, None]).square())
    kl = torch.full_like(mean, torch.nan)
    if other is not None:
        before = other.log_softmax(1)
        kl = _weighed(before.exp(), before - logp).clamp(min=0)
    top = logits.argmax(1) == targets
    return torch.stack([logp.gather(1, targets[:, None])[:, 0], top.float(), mean, variance.sqrt(), kl], 1)


def _weighed(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean of the values under p, by row; a token that cannot come (logit -inf) adds nothing."""
    return torch.where(p > 0, p * values, 0.0).sum(1)


def _stats(columns: torch.Tensor) -> TokenStats:
    logprob, top, mean, std, kl = columns.T
    return TokenStats(
        logprob=_rounded(logprob),
        top=tuple(bool(value) for value in top.tolist()),
        mean=_rounded(mean),
        std=_rounded(std),
        kl=None if kl.isnan().any() else _rounded(kl),
    )


def _rounded(column: torch.Tensor) -> tuple[float, ...]:
    """Six digits after the point: float32 holds no more of a log-probability, and files stay small."""
    return tuple(round(value, 6) for value in column.tolist())
