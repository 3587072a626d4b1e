"""The LM head apart from the decoder, and what is read off its logits.

The head runs through the model's own `forward`, so that a logit transform in it (soft-capping, scaling) stays in.

A row of logits of which nobody differentiates the log-probability or the mean, as LPL's unwanted words, has a gradient
in one entry: its way back through the head is one dot product in place of V (`scores`).

Where input embeddings and head are one weight, its gradient is made once, (V, D): the embeddings' rows are added to the
head's.

Shapes: K answer tokens, D hidden, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tif.scoring.linear import product


@contextlib.contextmanager
def skipped(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Inside, a forward leaves what would have gone into the head in the list, and its logits have no positions."""
    kept: list[torch.Tensor] = []

    def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        kept.append(args[0])
        return (args[0][..., :0, :], *args[1:])

    own: Any = model
    handle = own.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield kept
    finally:
        handle.remove()


def scores(model: torch.nn.Module, inputs: dict[str, Any], targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`of_logits` of the model's forward.

    Args:
        model: a Hugging Face causal LM.
        inputs: of its forward, such that its logits are (1, K, V). Rows at the end of which only the logit is
            differentiated cost less.
        targets: (K,) target ids.
    """
    back = _Back()
    with _product(model, targets, back), _embeddings(model, back):
        logits = model(**inputs).logits.squeeze(0)  # indexing has a gradient that fills and copies
    return _Scores.apply(logits, targets, back)


def scores_of_hidden(model: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`scores` with the model's decoder replaced by these hidden states, (K, D), of `skipped`."""
    base: Any = model
    if hasattr(base, "get_base_model"):  # peft wraps it
        base = base.get_base_model()
    name, back = base.base_model_prefix, _Back()
    decoder = base._modules[name]
    with _product(model, targets, back):  # transformers names no head where the decoder is not its own
        base._modules[name] = _Given(hidden[None])
        try:
            logits = model(inputs_embeds=hidden[None], use_cache=False).logits.squeeze(0)
        finally:
            base._modules[name] = decoder
    return _Scores.apply(logits, targets, back)


@contextlib.contextmanager
def _product(model: torch.nn.Module, targets: torch.Tensor, back: "_Back") -> Iterator[None]:
    """Inside, a head that is a plain linear layer multiplies by `_Head`."""
    own: Any = model
    layer = own.get_output_embeddings() if torch.is_grad_enabled() else None
    if not isinstance(layer, torch.nn.Linear) or not layer.weight.is_floating_point():  # adapted, or in few bits
        yield
        return

    def forward(x: torch.Tensor) -> torch.Tensor:
        given, kind = [x, layer.weight, layer.bias], x.device.type
        if torch.is_autocast_enabled(kind):
            given = [t if t is None else t.to(torch.get_autocast_dtype(kind)) for t in given]
        return _Head.apply(*given, targets, back)

    with _instead(layer, forward):
        yield


@contextlib.contextmanager
def _embeddings(model: torch.nn.Module, back: "_Back") -> Iterator[None]:
    """Inside, input embeddings that are the head's weight wait for its gradient.

    In float32 on a CPU, where the order of a sum's rows is fixed.
    """
    own: Any = model
    learns = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    layer: Any = own.get_input_embeddings() if learns else None
    weight: Any = getattr(layer, "weight", None)
    head = own.get_output_embeddings() if learns else None
    shared = isinstance(head, torch.nn.Linear) and weight is head.weight and type(weight) is torch.nn.Parameter
    plain = type(layer) is torch.nn.Embedding and layer.max_norm is None  # others scale, or change the weight
    if not (shared and plain and weight.is_cpu and weight.dtype == torch.float32 and weight.requires_grad):
        yield
        return
    back.tied = True
    with _instead(layer, lambda ids: _Embedding.apply(weight, ids, layer.padding_idx, back)):
        yield


@contextlib.contextmanager
def _instead(layer: torch.nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Inside, a layer's own `forward` is another."""
    before = vars(layer).get("forward")
    vars(layer)["forward"] = forward
    try:
        yield
    finally:
        del vars(layer)["forward"]
        if before is not None:
            vars(layer)["forward"] = before


class _Back:
    """What the backward pass of one part tells another.

    Attributes:
        rows: how many rows of logits, from the first, have a gradient in more than one entry.
        tied: whether the embeddings take the gradient of the head's weight on.
        weight: that gradient, (V, D).
    """

    rows: int
    tied = False
    weight: torch.Tensor | None = None


class _Head(torch.autograd.Function):
    """(1, K, D), (V, D), (V,) -> (1, K, V)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, back: _Back
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, targets)
        ctx.back = back
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, targets = ctx.saved_tensors
        rows = ctx.back.rows
        whole, hidden, at = grad[0, :rows], x[0], targets[rows:]
        one = grad[0, rows:].gather(1, at[:, None])
        x_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.cat([product(whole, weight.t()), one * weight[at]])[None]
        if ctx.needs_input_grad[1]:
            weight_grad = product(whole.t(), hidden[:rows].t()).index_add_(0, at, one * hidden[rows:])
        if ctx.needs_input_grad[2]:
            bias_grad = whole.sum(0).index_add_(0, at, one[:, 0])
        if ctx.back.tied:
            ctx.back.weight, weight_grad = weight_grad, None
        return x_grad, weight_grad, bias_grad, None, None


class _Embedding(torch.autograd.Function):
    """(V, D), (1, N) ids -> (1, N, D); its way back comes after the head's, through which all of it goes."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, ids: torch.Tensor, padding: int | None, back: _Back
    ) -> torch.Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.back = padding, back
        return torch.nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        found, ctx.back.weight = ctx.back.weight, None
        assert found is not None
        if ctx.padding is not None:  # as torch's: its row learns nothing here
            grad = grad * (ids != ctx.padding)[..., None]
        return found.index_add_(0, ids.flatten(), grad.flatten(0, -2)), None, None, None


class _Given(torch.nn.Module):
    """In a decoder's place: these hidden states, whatever it is asked."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *args: Any, **kwargs: Any) -> "_Said":
        return _Said(self.hidden)


class _Said:
    """A decoder's output with nothing but hidden states: no cache, no attentions, no router's logits."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


class _Scores(torch.autograd.Function):
    """Scores of logits in one pass over them, and their gradient in another: autograd's own steps take five.

    On a CPU a few rows at a time, which stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, back: _Back) -> tuple[torch.Tensor, ...]:
        found: list[tuple[torch.Tensor, ...]] = []
        for z, at in _blocks(logits, targets):
            logit = z.gather(1, at[:, None])[:, 0]
            found.append((logit, z.logsumexp(1), z.mean(1)))
        logit, norm, mean = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.save_for_backward(logits, targets, norm)
        ctx.back = back
        return logit, logit - norm, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, targets, norm = ctx.saved_tensors
        logit, logprob, mean = (g[:, None] for g in grads)
        more = ((logprob != 0) | (mean != 0)).nonzero()[:, 0]
        rows = ctx.back.rows = int(more[-1]) + 1 if len(more) else 0
        out, first = torch.empty_like(logits), 0
        out[rows:] = 0
        for z, at in _blocks(logits[:rows], targets[:rows]):
            own = slice(first, first + len(z))
            first += len(z)
            # d logprob / dz = one-hot - softmax; d logit / dz = one-hot; d mean / dz = 1 / V
            grad = (z - norm[own, None]).exp_().mul_(-logprob[own]).add_(mean[own] / z.shape[1])
            out[own] = grad.scatter_add_(1, at[:, None], (logit + logprob)[own])
        out[rows:].scatter_(1, targets[rows:, None], logit[rows:].to(out.dtype))
        return out, None, None


def _blocks(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of (K, V) logits, in float32 at least, and their targets; one block at least."""
    rows = 16 if logits.device.type == "cpu" else max(len(logits), 1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    for z, at in zip(logits.split(rows), targets.split(rows), strict=True):
        yield z.to(dtype), at


def of_logits(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, V) logits, (K,) target ids -> (K,) float32 each of logit, log-probability (nats), mean logit."""
    return _Scores.apply(logits, targets, _Back())
