"""Plain finetuning: what makes target and retain models, and the retain term of unlearning losses."""

import torch

from tif.losses.terms import Inputs, term, token_mean
from tif.schema import Loss
from tif.scoring import TokenScores


def cross_entropy(policy: TokenScores, mask: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the masked tokens of the whole batch, as Hugging Face's causal LMs compute it.

    Args:
        policy: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict counts.

    Returns:
        Scalar in nats per token; lower is better; 0 where the mask is empty.
    """
    return -token_mean(policy.logprob, mask)


@term()
def ce(x: Inputs, cfg: Loss) -> torch.Tensor:
    """`cross_entropy` as a term."""
    return cross_entropy(x.policy, x.mask)
