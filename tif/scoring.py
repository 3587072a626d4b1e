"""Model and batch to token scores: the only place with the next-token shift and the LM head.

Shapes: B samples, T tokens, K answer tokens of a row, V vocabulary.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import torch

from tif.data.encode import Batch, Encoded

# On a CPU a longer row costs more in attention than it saves in calls: SmolLM2-135M float32, forward, one core,
# CPU-seconds for 64 tokens: rows of 256 tokens 0.265, 512 0.274, 1024 0.306 (unpadded batches of equal length 0.24).
PACKED_TOKENS = {"cpu": 256, "cuda": 4096}


@dataclasses.dataclass
class TokenScores:
    """What losses and metrics need of a model, for each token that had to be predicted.

    Attributes:
        logit: (B, T-1) float32, raw logit of the true next token; column t scores token t+1. 0 outside the answer.
        logprob: (B, T-1) float32, its log-probability (nats). 0 outside the answer.
        mean_logit: (B, T-1) float32, mean of the logits over the vocabulary. 0 outside the answer.
    """

    logit: torch.Tensor
    logprob: torch.Tensor
    mean_logit: torch.Tensor

    def detach(self) -> "TokenScores":
        """The same numbers without a graph."""
        return TokenScores(self.logit.detach(), self.logprob.detach(), self.mean_logit.detach())


def packed_tokens(device: torch.device) -> int:
    """Tokens of a packed row that run fastest on the device."""
    return PACKED_TOKENS.get(device.type, PACKED_TOKENS["cuda"])


def token_scores(model: torch.nn.Module, batch: Batch, batching: str = "packed") -> TokenScores:
    """Score the answer tokens of a batch; the LM head runs on their positions only.

    The logits come from the model's own `forward` (`logits_to_keep`), so a model's logit transform (soft-capping,
    scaling) is in them; they are turned into float32 before anything is computed from them.

    Args:
        model: a Hugging Face causal LM.
        batch: prompts and answers; every row has an answer token at a position > 0.
        batching: "packed": samples end to end in rows without padding, kept apart by restarting `position_ids`;
            "padded": one rectangular forward with an attention mask made from the lengths.

    Returns:
        TokenScores with gradients where the model has them.
    """
    answer = batch.answer[:, 1:]
    rows, columns = answer.nonzero(as_tuple=True)
    forward = _packed if batching == "packed" else _padded
    parts = [_of_logits(logits, targets) for logits, targets in forward(model, batch)]
    empty = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
    return TokenScores(*(empty.index_put((rows, columns), torch.cat(p)) for p in zip(*parts, strict=True)))


def _of_logits(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, V) logits, (K,) target ids -> (K,) each of logit, log-probability, mean logit."""
    logits = logits.float()
    logit = logits.gather(1, targets[:, None])[:, 0]
    return logit, logit - logits.logsumexp(1), logits.mean(1)


def _packed(model: torch.nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(K, V) logits and (K,) targets of one packed row after the other, in the order of the batch."""
    for first, last in rows(batch.lengths.tolist(), packed_tokens(batch.input_ids.device)):
        lengths = batch.lengths[first:last]
        real = torch.arange(batch.input_ids.shape[1], device=lengths.device) < lengths[:, None]
        positions = real.cumsum(1)[real] - 1
        answer = batch.answer[first:last]
        answer[:, 0] = False  # nothing stands before a text's first token to predict it from
        answer = answer[real].nonzero()[:, 0]
        ids = batch.input_ids[first:last][real]
        # transformers keeps samples apart where position_ids restart, but only without an attention mask and a cache.
        output = model(input_ids=ids[None], position_ids=positions[None], logits_to_keep=answer - 1, use_cache=False)
        yield output.logits[0], ids[answer]


def rows(lengths: list[int], limit: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into consecutive runs of at most `limit` tokens (one sample at least)."""
    first, total = 0, 0
    for i, n in enumerate(lengths):
        if i > first and total + n > limit:
            yield first, i
            first, total = i, 0
        total += n
    if lengths:
        yield first, len(lengths)


def _padded(model: torch.nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    answer = batch.answer[:, 1:]
    columns = answer.any(0).nonzero()[:, 0]  # the head runs where any row has an answer
    real = torch.arange(batch.input_ids.shape[1], device=answer.device) < batch.lengths[:, None]
    output = model(input_ids=batch.input_ids, attention_mask=real.long(), logits_to_keep=columns, use_cache=False)
    keep = answer[:, columns]
    yield output.logits[keep], batch.input_ids[:, 1:][:, columns][keep]


def answer_logprobs(model: torch.nn.Module, groups: Sequence[Sequence[Encoded]]) -> list[list[torch.Tensor]]:
    """Log-probabilities of answers of which many continue the same prompt: what a group's texts share runs once.

    All groups stand in one row: a group's common prefix, then the rest of each of its texts. A token sees its group's
    prefix and its own text up to itself; positions go on from the prefix. TOFU's seven answers to a question cost two
    thirds of what they cost one by one.

    Args:
        model: a Hugging Face causal LM that takes `position_ids` and a (1, 1, N, N) attention mask.
        groups: texts by prompt.

    Returns:
        For each text of each group: (K,) float32, the log-probability (nats) of each answer token and the end token.
    """
    ids: list[int] = []
    positions: list[int] = []
    owner: list[tuple[int, int]] = []  # group, text; text -1 is the group's prefix
    before: list[int] = []  # where the token that predicts stands, for each answer token of each text
    targets: list[int] = []
    counts: list[list[int]] = []
    for g, texts in enumerate(groups):
        shared, first = len(os.path.commonprefix([e.input_ids for e in texts])), len(ids)
        parts = [(-1, 0, texts[0].input_ids[:shared])]
        parts += [(i, shared, e.input_ids[shared:]) for i, e in enumerate(texts)]
        counts.append([])
        for text, start, part in parts:
            own = len(ids) - start
            ids += part
            positions += range(start, start + len(part))
            owner += [(g, text)] * len(part)
            if text >= 0:
                e = texts[text]
                scored = [t for t in range(1, len(e.input_ids)) if e.uw[t] or e.gw[t]]
                before += [(first if t - 1 < shared else own) + t - 1 for t in scored]
                targets += [e.input_ids[t] for t in scored]
                counts[-1].append(len(scored))
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    group, text = torch.tensor(owner, device=device).T
    seen = ((group[:, None] == group) & ((text == -1) | (text[:, None] == text))).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    output = model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        attention_mask=mask[None, None],
        logits_to_keep=torch.tensor(before, device=device),
        use_cache=False,
    )
    logprobs = iter(_of_logits(output.logits[0], torch.tensor(targets, device=device))[1].split(sum(counts, [])))
    return [[next(logprobs) for _ in own_counts] for own_counts in counts]


def best_batching(asked: str, model: torch.nn.Module) -> str:
    """What `data.batching` means for this model: "auto" is "packed" where packing leaves the scores as they are.

    Models without `position_ids`, or whose state runs through the row (Mamba), fail the probe and are padded.
    """
    if asked != "auto":
        return asked
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = (torch.arange(10, device=device).view(2, 5) * 7 + 3) % vocabulary
    everything = torch.ones(2, 5, dtype=torch.bool, device=device)
    probe = Batch(("a", "b"), torch.arange(2), ids, torch.full((2,), 5, device=device), everything, ~everything)
    group = [Encoded("a", [*ids[0, :2].tolist(), *row], [True] * 5, [False] * 5) for row in ids[:, 2:].tolist()]
    whole = [Encoded("a", row, [True] * 5, [False] * 5) for row in ids.tolist()]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed, padded = (token_scores(model, probe, b).logprob for b in ("packed", "padded"))
            alone, together = answer_logprobs(model, [whole[:1], group])
        close = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
        same = torch.allclose(packed, padded, atol=close) and torch.allclose(alone[0], together[0], atol=close)
    except (TypeError, ValueError, RuntimeError):  # forward takes no position_ids, or no mask of its own
        same = False
    finally:
        model.train(training)
    return "packed" if same else "padded"
