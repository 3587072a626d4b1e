"""The optimizer and the learning-rate schedule."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from tif.config.errors import ConfigError
from tif.config.schema import Optimizer
from tif.utils import terminal

# Beside norms and other vectors: biases of experts, and the speed and the skip of Mamba's states,
# which have two dimensions in Mamba 1 (A = -exp(A_log): decay would pull all speeds together).
NO_DECAY = r"(bias|\.A_log|\.D)$"
PIECE = 2**22  # weights that have copies in float32 at a time


class RoundingAdamW(torch.optim.Optimizer):
    """AdamW for bfloat16 weights: torch's arithmetic in float32, its results rounded at random.

    A weight or second moment becomes one of its two neighbours in bfloat16, the nearer the
    likelier, so that it is right on average. Rounding to the nearest would lose most steps: at a
    learning rate of 1e-5 they are smaller than the distance to the next bfloat16. A weight with its
    gradient takes 8 bytes, in float32 16.

    Not optimi's AdamW: its Kahan sums keep a step back until it is as large as that distance, and
    TPO's curve then stays behind float32's (docs/performance.md). Not torchao's: it needs a C++
    compiler and draws from the global random state.

    Args:
        groups: of weights, as torch.optim.AdamW takes them; all weights in bfloat16.
        lr: learning rate.
        seed: owner of the draws; a step's come from (seed, number of the step) alone.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, seed: int) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore
        """Take one step; `closure` computes the loss and the gradient first, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        generator: torch.Generator | None = None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(weight)
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                if generator is None:
                    generator = torch.Generator(weight.device)
                    owner = np.random.SeedSequence((self.seed, int(state["step"])))
                    generator.manual_seed(int(owner.generate_state(1)[0]))
                tensors = weight, weight.grad, state["exp_avg"], state["exp_avg_sq"]
                # Copies of a whole embedding in float32 would take the room that is saved.
                for stored in zip(*map(_split, tensors), strict=True):
                    _update(stored, state["step"], group, generator)
                state["step"] += 1
        return loss


def _update(
    stored: Sequence[torch.Tensor], step: torch.Tensor, group: dict[str, Any],
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Take step + 1 with a piece of a weight, its gradient, first and second moment."""
    weight, gradient, first, second = (tensor.float() for tensor in stored)
    adamw(
        [weight], [gradient], [first], [second], [], [step.clone()], amsgrad=False, beta1=0.9,
        beta2=0.999, lr=group["lr"], weight_decay=group["weight_decay"], eps=1e-8, maximize=False,
        fused=weight.is_cpu,
    )  # fmt: skip
    stored[2].copy_(first)  # a tenth of it is new: the nearest will do
    stored[0].copy_(round_at_random(weight, generator))
    stored[3].copy_(round_at_random(second, generator))


def _split(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return views of a tensor (of this process's shard) of about PIECE numbers, along dim 0."""
    local = torch.atleast_1d(_local(tensor))
    return local.split(max(1, PIECE // max(1, local[:1].numel())))


def round_at_random(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a float32 tensor in bfloat16: each number up or down, so that the mean stays."""
    bits = value.flatten().view(torch.int32).clone()
    # One draw of 63 bits has the 16 bits that two numbers need.
    draws = torch.empty((len(bits) + 1) // 2, dtype=torch.int64, device=value.device)
    noise = draws.random_(generator=generator).view(torch.int32)[: len(bits)]
    # The upper half of a float32 is a bfloat16; adding noise to the lower half carries into it.
    bits.add_(noise.bitwise_and_(2**16 - 1)).bitwise_and_(-(2**16))
    return bits.view(torch.float32).bfloat16().view(value.shape)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def make_optimizer(
    policy: torch.nn.Module, settings: Optimizer, precision: str, seed: int = 0
) -> torch.optim.Optimizer:
    """Return AdamW over the weights that are trained, without decay where `NO_DECAY` says.

    Embeddings decay, as they do under transformers' Trainer, which the released code trains with.
    `precision`: trainer.precision. `seed`: of the draws that `RoundingAdamW` makes.
    """
    weights = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
    decaying = [name for name, weight in weights.items() if _decays(name, weight)]
    others = [name for name, weight in weights.items() if not _decays(name, weight)]
    groups: list[dict[str, Any]] = [
        {"params": [weights[name] for name in decaying], "weight_decay": settings.weight_decay},
        {"params": [weights[name] for name in others], "weight_decay": 0.0},
    ]
    dtypes = {weight.dtype for weight in weights.values()}
    name = settings.name
    if name == "auto":
        name = "adamw_bf16" if dtypes == {torch.bfloat16} else "adamw"
    if name == "adamw_bf16":
        if dtypes != {torch.bfloat16}:
            wrong = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            raise ConfigError(
                f"optimizer.name: adamw_bf16 is for weights in bfloat16, got {wrong}; want auto"
            )
        return RoundingAdamW(groups, settings.lr, seed)
    if dtypes & {torch.bfloat16, torch.float16}:
        terminal.console.print(
            f"optimizer.name: {name} rounds its steps to the weights' 16 bits and loses most of "
            "them at small learning rates; want auto with bfloat16, or trainer.precision="
            "bf16-mixed with model.dtype=float32"
        )
    if name == "adamw":
        # Lightning refuses to clip gradients for a fused optimizer under mixed precision.
        return torch.optim.AdamW(groups, lr=settings.lr, fused="mixed" not in precision)
    from bitsandbytes import optim

    classes = {
        "adamw8bit": optim.AdamW8bit,
        "paged_adamw": optim.PagedAdamW,
        "paged_adamw8bit": optim.PagedAdamW8bit,
    }
    return classes[name](groups, lr=settings.lr)


def _decays(name: str, weight: torch.Tensor) -> bool:
    return weight.dim() > 1 and not re.search(NO_DECAY, name)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Optimizer, steps: int, epochs: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return linear warm-up, then linear decay to 0 or a constant learning rate.

    Not transformers' schedules: the first step of their warm-up has learning rate 0 and changes
    nothing. `steps`: optimizer steps of the run, in so many `epochs`.
    """
    warmup = round(settings.warmup_epochs * steps / epochs)

    def learning_rate_factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.decay == "constant":
            return 1.0
        return (steps - step) / max(steps - warmup, 1)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
