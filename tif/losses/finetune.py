"""Cross-entropy: finetunes target and retain models; the retain term of most losses."""

import torch

from tif.losses.terms import Inputs, NoKeys, term


def cross_entropy(inputs: Inputs) -> torch.Tensor:
    """Return the mean negative log-likelihood of the counting tokens, as Hugging Face's LMs do.

    Returns:
        Scalar in nats per token; lower is better; 0 where no token counts.
    """
    return -inputs.token_mean(inputs.policy.logprob)


@term("ce", role="both")
def ce(inputs: Inputs, keys: NoKeys) -> torch.Tensor:
    """Learn the answers: cross-entropy, nats per token of the batch.

    Source: Hugging Face's causal LMs; as a retain term locuslab/tofu dataloader.py (grad_diff).
    """
    return cross_entropy(inputs)
