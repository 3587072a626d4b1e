"""Plain finetuning: what makes target and retain models, and the retain term of unlearning losses."""

import torch

from tif.scoring import TokenScores


def cross_entropy(policy: TokenScores, mask: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the masked tokens of the whole batch, as Hugging Face's causal LMs compute it.

    Args:
        policy: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict counts.

    Returns:
        Scalar in nats per token; lower is better; 0 where the mask is empty.
    """
    return -(policy.logprob * mask).sum() / mask.sum().clamp(min=1)
