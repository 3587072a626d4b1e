"""The LM head apart from the decoder, and what is read off its logits.

The head runs through the model's own `forward`, so that a logit transform in it (soft-capping, scaling) stays in.

Shapes: K answer tokens, D hidden, V vocabulary.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


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


def logits(model: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """(K, D) of `skipped` -> (K, V): the model's forward with its decoder replaced by these hidden states."""
    base: Any = model
    if hasattr(base, "get_base_model"):  # peft wraps it
        base = base.get_base_model()
    name = base.base_model_prefix
    decoder = base._modules[name]
    base._modules[name] = _Given(hidden[None])
    try:
        return model(inputs_embeds=hidden[None], use_cache=False).logits[0]
    finally:
        base._modules[name] = decoder


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
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: list[tuple[torch.Tensor, ...]] = []
        for z, at in _blocks(logits, targets):
            logit = z.gather(1, at[:, None])[:, 0]
            found.append((logit, z.logsumexp(1), z.mean(1)))
        logit, norm, mean = (torch.cat(parts) for parts in zip(*found, strict=True))
        ctx.save_for_backward(logits, targets, norm)
        return logit, logit - norm, mean

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, norm = ctx.saved_tensors
        out, first = torch.empty_like(logits), 0
        for z, at in _blocks(logits, targets):
            own = slice(first, first + len(z))
            logit, logprob, mean = (g[own, None] for g in grads)
            first += len(z)
            # d logprob / dz = one-hot - softmax; d logit / dz = one-hot; d mean / dz = 1 / V
            grad = (z - norm[own, None]).exp_().mul_(-logprob).add_(mean / z.shape[1])
            out[own] = grad.scatter_add_(1, at[:, None], logit + logprob)
        return out, None


def _blocks(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of (K, V) logits, in float32 at least, and their targets; one block at least."""
    rows = 16 if logits.device.type == "cpu" else max(len(logits), 1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    for z, at in zip(logits.split(rows), targets.split(rows), strict=True):
        yield z.to(dtype), at


def of_logits(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, V) logits, (K,) target ids -> (K,) float32 each of logit, log-probability (nats), mean logit."""
    return _Scores.apply(logits, targets)
