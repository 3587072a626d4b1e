"""Gradient ascent and its weighted forms: no reference. Lower is better, and none but the weights bounds them below."""

import torch

from tif.config.schema import Loss
from tif.losses.finetune import cross_entropy
from tif.losses.terms import Inputs, term


@term()
def ga(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Gradient ascent: minus the cross-entropy, nats per token of the batch.

    Source: locuslab/tofu dataloader.py (grad_ascent; with retain=ce grad_diff, with retain=kl KL); unbounded below.
    """
    return -cross_entropy(x)


@term()
def wga(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Weighted gradient ascent: mean of p^beta log p over the tokens, p^beta without gradient.

    Tokens that are already unlikely weigh less. Source: arXiv 2502.19301; open-unlearning src/trainer/utils.py.
    """
    return x.token_mean(_probability(x) ** cfg.beta * x.policy.logprob)


@term()
def satimp(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Saturation and importance: mean of p^beta (1 - p)^beta2 log p over the tokens, the weights without gradient.

    Source: arXiv 2505.11953; open-unlearning src/trainer/utils.py.
    """
    p = _probability(x)
    return x.token_mean(p**cfg.beta * (1 - p) ** cfg.beta2 * x.policy.logprob)


def _probability(x: Inputs) -> torch.Tensor:
    # Rounding can put a log-probability above 0, and a power of 1 - p must not see that.
    return x.policy.logprob.detach().exp().clamp(max=1)
