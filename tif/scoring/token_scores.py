"""Model and batch to token scores: the only place with the next-token shift and the LM head.

Shapes: B samples, T tokens, K answer tokens of a row, V vocabulary.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch.utils.checkpoint import checkpoint

from tif.data.encoding import Batch, Encoded, collate
from tif.scoring import lm_head as head
from tif.scoring.lm_head import of_logits
from tif.scoring.packing import CHUNK_TOKENS, Layout, layout, packed_tokens, row_tokens, rows, rows_of, step_tokens

__all__ = ["packed_tokens", "rows", "step_tokens"]


# Opens a model for one forward; what it yields may share its weights with the policy.
ModelContext = Callable[[], AbstractContextManager[torch.nn.Module]]


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


@dataclasses.dataclass
class Outputs:
    """What a model says about the K answer tokens of some samples.

    Attributes:
        logits: (K, V) float32, raw logits that each token was predicted from.
        targets: (K,) long, the tokens.
        hidden: (K, d) float32, output of one decoder layer at the token itself, where it was asked for.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    hidden: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class PerToken:
    """A number for each answer token that takes more than its scores: the whole distribution, or hidden states.

    Attributes:
        value: (policy, reference or None) -> (K,) float32.
        reference: whether `value` compares with the original model.
        layer: decoder layer, counted from 0, whose hidden states `value` reads; None = no hidden states.
        lowered: whether it compares with the original's logits as the reinforced model lowers them (tif.models.whp).
    """

    value: Callable[[Outputs, Outputs | None], torch.Tensor]
    reference: bool = False
    layer: int | None = None
    lowered: bool = False


def token_scores(
    model: torch.nn.Module, batch: Batch, batching: str = "packed", chunk_tokens: int = CHUNK_TOKENS
) -> TokenScores:
    """Score the answer tokens of a batch; the LM head runs on their positions only.

    The logits come from the model's own `forward` (`logits_to_keep`), so a model's logit transform (soft-capping,
    scaling) is in them; they are turned into float32 before anything is computed from them.

    Args:
        model: a Hugging Face causal LM.
        batch: prompts and answers.
        batching: "packed": samples end to end in rows without padding, kept apart by restarting `position_ids`;
            "padded": one rectangular forward with an attention mask made from the lengths.
        chunk_tokens: where a forward has more answer tokens, their logits are made in chunks of so many, and again in
            the backward pass: never more than that times the vocabulary is held.

    Returns:
        TokenScores with gradients where the model has them.
    """
    rows = rows_of(batch, row_tokens(model, batch)) if batching == "packed" else (batch,)
    return TokenScores(*_placed(batch, [_scores(model, layout(model, part, batching), chunk_tokens) for part in rows]))


def _scores(model: torch.nn.Module, asked: Layout, chunk_tokens: int) -> tuple[torch.Tensor, ...]:
    """(K,) each of logit, log-probability, mean logit."""
    where, many = asked.inputs["logits_to_keep"], len(asked.targets) > chunk_tokens
    if not many and len(asked.inputs["input_ids"]) > 1:  # the head's logits are a rectangle
        return of_logits(asked.cut(model(**asked.inputs).logits), asked.targets)
    learns = torch.is_grad_enabled()
    order = (asked.unwanted & learns).argsort(stable=True)  # those last, see head.scores
    targets = asked.targets[order]
    if not many:
        found = head.scores(model, asked.inputs | {"logits_to_keep": where[order]}, targets)
    else:
        with head.skipped(model) as kept:
            model(**asked.inputs)
        hidden = asked.cut(kept[0])[order]

        def some(*chunk: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return head.scores_of_hidden(model, *chunk)

        parts = [
            checkpoint(some, *chunk, use_reentrant=False) if learns else some(*chunk)
            for chunk in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        ]
        found = tuple(torch.cat(own) for own in zip(*parts, strict=True))
    back = order.argsort()
    return tuple(t[back] for t in found)


def token_values(
    model: torch.nn.Module, batch: Batch, batching: str, own: PerToken, reference: ModelContext | None = None
) -> tuple[TokenScores, torch.Tensor]:
    """`token_scores`, and `own.value` of each answer token, from one graph.

    Logits are held for a few samples at a time (as many as fill a packed row): those are dropped after the forward and
    made again in the backward pass, which costs one more forward.

    Args:
        model, batch, batching: as `token_scores`.
        own: what to compute.
        reference: opens the original model, where `own.reference`; no gradient goes there.

    Returns:
        The scores, and (B, T-1) float32: column t is the value of token t+1, 0 outside the answer.
    """

    def values(part: Batch) -> tuple[torch.Tensor, ...]:
        said, other = _outputs(model, part, batching, own.layer), None
        if own.reference:
            assert reference is not None
            with reference() as original, torch.no_grad():
                other = _outputs(original, part, batching, own.layer)
        return *of_logits(said.logits, said.targets), own.value(said, other)

    again, limit = torch.is_grad_enabled(), packed_tokens(batch.input_ids.device)
    parts = [checkpoint(values, part, use_reentrant=False) if again else values(part) for part in rows_of(batch, limit)]
    *scores, value = _placed(batch, parts)
    return TokenScores(*scores), value


def _placed(batch: Batch, parts: Sequence[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    """(K,) values of the samples' answer tokens, in order -> (B, T-1), 0 outside the answer."""
    answer = batch.answer[:, 1:]
    rows, columns = answer.nonzero(as_tuple=True)
    empty = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
    return [empty.index_put((rows, columns), torch.cat(p)) for p in zip(*parts, strict=True)]


def _outputs(model: torch.nn.Module, batch: Batch, batching: str, layer: int | None) -> Outputs:
    """Whole distributions, and hidden states of a layer where one is asked for."""
    asked = layout(model, batch, batching)
    output = model(**asked.inputs, **({} if layer is None else {"output_hidden_states": True}))
    # the first hidden states are the embeddings
    hidden = None if layer is None else asked.at(output.hidden_states[layer + 1]).float()
    return Outputs(asked.cut(output.logits).float(), asked.targets, hidden)


def answer_logits(
    model: torch.nn.Module,
    groups: Sequence[Sequence[Encoded]],
    batching: str,
    pad_id: int = 0,
    beside: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Logits of the answer tokens of all texts, group by group, text by text.

    Packed: all groups stand in one row, a group's common prefix, then the rest of each of its texts. A token sees its
    group's prefix and its own text up to itself; positions go on from the prefix. TOFU's seven answers to a question
    cost two thirds of what they cost one by one. Padded: the texts in one rectangular forward.

    Args:
        model: a Hugging Face causal LM; packed, one that takes `position_ids` and a (1, 1, N, N) attention mask.
        groups: texts that share a prompt (or one text).
        batching: "packed" or "padded".
        pad_id: padding's id, where padded.
        beside: a model on the same device with the same dtype, where `model` has no weights of its own to tell.

    Returns:
        (K, V) logits (the model's dtype or float32), (K,) the tokens they predict, and each text's number of them.
    """
    place = next((beside or model).parameters())
    if batching == "padded":
        flat = [e for own in groups for e in own]
        batch = collate(flat, range(len(flat)), pad_id)
        for name in ("input_ids", "lengths", "uw", "gw"):
            setattr(batch, name, getattr(batch, name).to(place.device))
        asked = layout(model, batch, "padded")
        return asked.cut(model(**asked.inputs).logits), asked.targets, batch.answer[:, 1:].sum(1).tolist()
    ids: list[int] = []
    positions: list[int] = []
    owner: list[tuple[int, int]] = []  # group, text; text -1 is the group's prefix
    before: list[int] = []  # where the token that predicts stands, for each answer token of each text
    targets: list[int] = []
    counts: list[int] = []
    for g, texts in enumerate(groups):
        shared, first = len(os.path.commonprefix([e.input_ids for e in texts])), len(ids)
        parts = [(-1, 0, texts[0].input_ids[:shared])]
        parts += [(i, shared, e.input_ids[shared:]) for i, e in enumerate(texts)]
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
                counts.append(len(scored))
    device, dtype = place.device, place.dtype
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
    return output.logits[0], torch.tensor(targets, device=device), counts


def answer_logprobs(model: torch.nn.Module, groups: Sequence[Sequence[Encoded]]) -> list[torch.Tensor]:
    """For each text: (K,) float32, the log-probability (nats) of each answer token and the end token, packed."""
    logits, targets, counts = answer_logits(model, groups, "packed")
    return list(of_logits(logits, targets)[1].split(counts))


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
            alone, together, _ = answer_logprobs(model, [whole[:1], group])
        close = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
        same = torch.allclose(packed, padded, atol=close) and torch.allclose(alone, together, atol=close)
    except (TypeError, ValueError, RuntimeError):  # forward takes no position_ids, or no mask of its own
        same = False
    finally:
        model.train(training)
    return "packed" if same else "padded"
