"""The optimizer and the learning-rate schedule; called by `UnlearningModule`."""

import torch

from tif.config.schema import Optimizer
from tif.utils import terminal


def make_optimizer(
    policy: torch.nn.Module, settings: Optimizer, precision: str
) -> torch.optim.Optimizer:
    """Return AdamW over the weights that are trained, without decay on biases and norms.

    Args:
        policy: the model.
        settings: the section.
        precision: trainer.precision.
    """
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if weight.dim() > 1]
    vectors = [weight for weight in weights if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    has_16_bit_weights = any(weight.dtype.itemsize == 2 for weight in weights)
    name = settings.name
    if name == "auto":
        name = "adamw_kahan" if has_16_bit_weights else "adamw"
    if name == "adamw_kahan":
        import optimi

        # torch's values, not optimi's (0.99 and 1e-6): the weights' dtype alone shall differ.
        # Its Triton kernels were not tried on a GPU.
        return optimi.AdamW(groups, settings.lr, (0.9, 0.999), eps=1e-8, triton=False)
    if has_16_bit_weights:
        terminal.console.print(
            f"optimizer.name: {name} rounds its steps to the weights' 16 bits and loses most of "
            "them at small learning rates; want auto or adamw_kahan, or trainer.precision="
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


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Optimizer, steps: int, epochs: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return linear warm-up, then linear decay to 0 or a constant learning rate.

    Not transformers' schedules: the first step of their warm-up has learning rate 0 and changes
    nothing.

    Args:
        optimizer: the optimizer.
        settings: the section.
        steps: optimizer steps of the run.
        epochs: in which they are made.
    """
    warmup = round(settings.warmup_epochs * steps / epochs)

    def learning_rate_factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.decay == "constant":
            return 1.0
        return (steps - step) / max(steps - warmup, 1)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
