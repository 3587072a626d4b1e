"""Compute token scores of a batch; the next-token shift is made here.

Called by the training module, the references, the identifiers and the evaluation.

Shapes: B samples, T tokens, K answer tokens of some samples, V vocabulary, D hidden.
"""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from tif.data.encoding import Batch
from tif.scoring.block_output import pick_output, recorded_block
from tif.scoring.forward import run_model
from tif.scoring.lm_head import CHUNK_TOKENS, score_in_chunks, scores_of_logits, split_model
from tif.scoring.packing import Layout, lay_out, packed_tokens, row_tokens, rows_of, samples_of

# Opens a model for one forward; what it yields may share its weights with the policy.
ModelContext = Callable[[], AbstractContextManager[torch.nn.Module]]


@dataclasses.dataclass
class TokenScores:
    """Scores of each token that had to be predicted, for losses and metrics.

    Attributes:
        logit: (B, T-1) float32, raw logit of the true next token; column t scores token t+1. 0
            outside the answer.
        logprob: (B, T-1) float32, its log-probability (nats). 0 outside the answer.
        mean_logit: (B, T-1) float32, mean of the logits over the vocabulary. 0 outside the answer.
    """

    logit: torch.Tensor
    logprob: torch.Tensor
    mean_logit: torch.Tensor

    def detach(self) -> "TokenScores":
        """Return the scores detached from the graph."""
        return TokenScores(self.logit.detach(), self.logprob.detach(), self.mean_logit.detach())

    def samples(self, first: int, last: int, tokens: int) -> "TokenScores":
        """Return the scores of samples first to last (exclusive), `tokens` tokens wide."""
        columns = (self.logit, self.logprob, self.mean_logit)
        return TokenScores(*(column[first:last, : tokens - 1] for column in columns))


@dataclasses.dataclass
class Outputs:
    """A model's outputs at the K answer tokens of some samples.

    Attributes:
        logits: (K, V) float32, raw logits that each token was predicted from.
        targets: (K,) long, the tokens.
        hidden: (K, D) float32, output of one decoder layer at the token itself, where it was asked
            for.
    """

    logits: torch.Tensor
    targets: torch.Tensor
    hidden: torch.Tensor | None = None

    def tokens(self, rows: slice) -> "Outputs":
        """Return the outputs of a slice of the answer tokens."""
        hidden = None if self.hidden is None else self.hidden[rows]
        return Outputs(self.logits[rows], self.targets[rows], hidden)


@dataclasses.dataclass(frozen=True)
class PerToken:
    """A value per answer token, computed from its whole distribution or from hidden states.

    Attributes:
        value: (policy, reference or None) -> (K,) float32.
        reference: whether `value` compares with the original model.
        layer: decoder layer, counted from 0, whose hidden states `value` reads; None = no hidden
            states.
        lowered: whether it compares with the original's logits as the reinforced model lowers them
            (tif.models.derived).
    """

    value: Callable[[Outputs, Outputs | None], torch.Tensor]
    reference: bool = False
    layer: int | None = None
    lowered: bool = False


@dataclasses.dataclass(frozen=True)
class ValueRequest:
    """A request for a value per answer token of some samples of a batch.

    Attributes:
        first, last: the samples, last exclusive.
        per_token: what to compute.
        original: opens the model that it compares with, where `per_token.reference`; no gradient
            goes there.
    """

    first: int
    last: int
    per_token: PerToken
    original: ModelContext | None = None

    def in_row(self, first: int, size: int) -> "ValueRequest":
        """Return the part of the request in a row of `size` samples from sample `first` on."""
        start, stop = (min(max(index - first, 0), size) for index in (self.first, self.last))
        return dataclasses.replace(self, first=start, last=stop)


def score_tokens(
    model: torch.nn.Module, batch: Batch, batching: str = "packed", chunk_tokens: int = CHUNK_TOKENS
) -> TokenScores:
    """Score the answer tokens of a batch; the LM head runs on their positions only.

    The logits come from the model's own `forward` (`logits_to_keep`), so a model's logit transform
    (soft-capping, scaling) is in them. They are turned into float32 before anything is computed
    from them.

    Args:
        model: a Hugging Face causal LM.
        batch: prompts and answers; pairs are not looked at.
        batching: "packed": samples end to end in rows without padding, kept apart by restarting
            `position_ids`; "padded": one rectangular forward with an attention mask made from the
            lengths.
        chunk_tokens: where a forward has more answer tokens, their logits are computed in chunks of
            this size, and again in the backward pass, if the model can be split so.

    Returns:
        TokenScores with gradients where the model has them.
    """
    rows = rows_of(batch, row_tokens(model, batch)) if batching == "packed" else (batch,)
    scores = [_score_layout(model, lay_out(model, row, batching), chunk_tokens) for row in rows]
    return TokenScores(*(_place(batch, column) for column in zip(*scores, strict=True)))


def _score_layout(
    model: torch.nn.Module, layout: Layout, chunk_tokens: int
) -> tuple[torch.Tensor, ...]:
    """Return (K,) each of logit, log-probability and mean logit, from one forward."""
    split = split_model(model) if len(layout.targets) > chunk_tokens else None
    if split is None:
        logits = layout.select_predictions(run_model(model, layout.inputs).logits)
        return scores_of_logits(logits, layout.targets)
    inputs = dict(layout.inputs)
    positions = inputs.pop("logits_to_keep")
    hidden = split.decoder(**inputs).last_hidden_state[:, positions]
    return score_in_chunks(split, layout.select_predictions(hidden), layout.targets, chunk_tokens)


def score_tokens_and_values(
    model: torch.nn.Module, batch: Batch, batching: str, requests: Sequence[ValueRequest]
) -> tuple[TokenScores, list[torch.Tensor]]:
    """Score the answer tokens of a batch, with values of some samples, from one graph.

    Logits are held for a few samples at a time (as many as fill a packed row). They are dropped
    after the forward and computed again in the backward pass, which costs one more forward.

    Args:
        model, batch, batching: as for `score_tokens`.
        requests: samples and values.

    Returns:
        The scores, and for each request (last - first, T-1) float32: column t is the value of token
        t+1, 0 outside the answer.
    """
    parts, first = [], 0
    for row in rows_of(batch, packed_tokens(batch.input_ids.device)):
        in_row = [request.in_row(first, len(row.ids)) for request in requests]
        work = partial(_score_row, model, row, batching, in_row)
        is_learning = torch.is_grad_enabled()
        parts.append(checkpoint(work, use_reentrant=False) if is_learning else work())
        first += len(row.ids)
    columns = list(zip(*parts, strict=True))
    scores = TokenScores(*(_place(batch, column) for column in columns[:3]))
    values = []
    for request, column in zip(requests, columns[3:], strict=True):
        values.append(_place(samples_of(batch, request.first, request.last), column))
    return scores, values


def _score_row(
    model: torch.nn.Module, row: Batch, batching: str, requests: Sequence[ValueRequest]
) -> tuple[torch.Tensor, ...]:
    """Return (K,) each of logit, log-probability and mean logit, and the values of each request."""
    layers = {request.per_token.layer for request in requests} - {None}
    outputs = _run(model, row, batching, layers.pop() if layers else None)
    counts = row.answer[:, 1:].sum(1)
    values = []
    for request in requests:
        start, stop = int(counts[: request.first].sum()), int(counts[: request.last].sum())
        if start == stop:
            values.append(outputs.logits.new_zeros(0))
            continue
        original = None
        if request.per_token.reference:
            assert request.original is not None
            samples = samples_of(row, request.first, request.last)
            with request.original() as original_model, torch.no_grad():
                original = _run(original_model, samples, batching, request.per_token.layer)
        values.append(request.per_token.value(outputs.tokens(slice(start, stop)), original))
    return *scores_of_logits(outputs.logits, outputs.targets), *values


def _run(model: torch.nn.Module, batch: Batch, batching: str, layer: int | None) -> Outputs:
    """Return the distributions, and a block's output on request, from one forward."""
    layout, hidden = lay_out(model, batch, batching), None
    if layer is None:
        output = run_model(model, layout.inputs)
    else:
        with recorded_block(model, layer) as states:
            output = run_model(model, layout.inputs)
        hidden = pick_output(states, layout.answers.shape)[layout.answers].float()
    return Outputs(layout.select_predictions(output.logits).float(), layout.targets, hidden)


def _place(batch: Batch, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Place the (K,) values of the answer tokens at their positions: (B, T-1), 0 elsewhere."""
    answer = batch.answer[:, 1:]
    empty = torch.zeros(answer.shape, dtype=torch.float32, device=answer.device)
    return empty.index_put(answer.nonzero(as_tuple=True), torch.cat(list(parts)))
