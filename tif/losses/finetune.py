"""Plain finetuning: what makes target and retain models, and the retain term of unlearning losses."""

import torch

from tif.config.schema import Loss
from tif.losses.terms import Inputs, term


def cross_entropy(x: Inputs) -> torch.Tensor:
    """Mean negative log-likelihood of the masked tokens of the whole batch, as Hugging Face's causal LMs compute it.

    Returns:
        Scalar in nats per token; lower is better; 0 where the mask is empty.
    """
    return -x.token_mean(x.policy.logprob)


@term()
def ce(x: Inputs, cfg: Loss) -> torch.Tensor:
    """`cross_entropy` as a term."""
    return cross_entropy(x)
