"""Linear layers whose float32 matrix products are oneDNN's, on AMD CPUs.

PyTorch multiplies float32 matrices with MKL, which is slow on some of these CPUs (pytorch/builder#504, #1245); PyTorch
has oneDNN too, which is not. Both round sums in their own order: results agree to float32's precision.

Measured, two cores, the seven matrices of a SmolLM2-135M layer and its head, 64 to 1,024 tokens, forward and backward:
1.5 to 2.1 times as fast on Zen 5. On Zen 4 the products alone are as fast as MKL's or up to 1.3 times, a training step
1.07 to 1.12 times. oneDNN compiles a program for each new shape, which takes about 1 ms and stays; a packed row has a
length of its own, and its shapes come back in the model's other layers and hardly later: small products do not earn it.

Shapes: N tokens, I inputs, O outputs.
"""

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_M = TypeVar("_M", bound=torch.nn.Module)
SMALLEST = 2**26  # multiplications


@functools.cache
def pays() -> bool:
    """Whether this is a machine where it was measured to be faster."""
    try:
        vendor = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "AuthenticAMD" in vendor and wide and torch.backends.mkldnn.is_available()


def use(model: "PreTrainedModel | torch.nn.Module") -> None:
    """Let a model's plain linear layers multiply so, where that pays."""
    for module in model.modules() if pays() else ():
        if type(module) is torch.nn.Linear:
            module.__class__ = Linear


def plain(model: _M) -> _M:
    """The same model with torch's own layers: it shares weights, their gradients and buffers."""
    own = {id(t): t for t in (*model.parameters(), *model.buffers())}
    other = copy.deepcopy(model, own)
    for module in other.modules():
        if type(module) is Linear:
            module.__class__ = torch.nn.Linear  # type: ignore[assignment]
    return other


class Linear(torch.nn.Linear):
    """torch's own, with other products where they are faster."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., I) -> (..., O)."""
        if _fits(input, self.weight) and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(input, self.weight, self.bias)
        return super().forward(input)


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., K), (M, K), (M,) -> (..., M): a b' + bias, without a gradient; the faster way."""
    if _fits(a, b):
        return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return torch.nn.functional.linear(a, b, bias)


def _fits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return pays() and a.is_cpu and a.dtype == b.dtype == torch.float32 and a.numel() * len(b) >= SMALLEST


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_wanted, weight_wanted, bias_wanted = ctx.needs_input_grad
        g = grad.reshape(-1, grad.shape[-1]).contiguous()  # what is expanded has no strides for oneDNN
        return (
            product(g, weight.t()).view(x.shape) if x_wanted else None,
            product(g.t(), x.reshape(-1, x.shape[-1]).t()) if weight_wanted else None,
            g.sum(0) if bias_wanted else None,
        )
