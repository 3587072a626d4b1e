"""Terms of the answer's likelihood alone: cross-entropy, gradient ascent and its weighted forms.

Lower is better. Only the weights bound the ascent terms below.
"""

import dataclasses

import torch

from tif.config.keys import key
from tif.losses.terms import Beta, Inputs, NoKeys, or_one, term
from tif.scoring.token_scores import Outputs, PerToken


def cross_entropy(inputs: Inputs) -> torch.Tensor:
    """Return the mean negative log-likelihood (nats) of the counting tokens; 0 without any."""
    return -inputs.token_mean(inputs.policy.logprob)


@term("ce", role="both")
def ce(inputs: Inputs, keys: NoKeys) -> torch.Tensor:
    """Learn the answers: cross-entropy, nats per token of the batch.

    Source: Hugging Face's causal LMs; as a retain term locuslab/tofu dataloader.py (grad_diff).
    """
    return cross_entropy(inputs)


@term("ga")
def ga(inputs: Inputs, keys: NoKeys) -> torch.Tensor:
    """Raise the loss of the answers (gradient ascent).

    Minus the cross-entropy, nats per token of the batch; unbounded below.

    Source: locuslab/tofu dataloader.py (grad_ascent; with retain=ce grad_diff, with retain=kl KL).
    """
    return -cross_entropy(inputs)


@term("wga", keys=Beta)
def wga(inputs: Inputs, keys: Beta) -> torch.Tensor:
    """Raise the loss, with less weight on tokens that are unlikely already.

    Mean over tokens of p^beta log p, p^beta without gradient.

    Source: arXiv 2502.19301; open-unlearning src/trainer/utils.py.
    """
    return inputs.token_mean(_probability(inputs) ** keys.beta * inputs.policy.logprob)


@dataclasses.dataclass
class SatImpKeys(Beta):
    """Keys of satimp."""

    beta2: float = key(1.0, "satimp: power of 1 - probability", at_least=0)


@term("satimp", keys=SatImpKeys)
def satimp(inputs: Inputs, keys: SatImpKeys) -> torch.Tensor:
    """Raise the loss, weighted by saturation and importance.

    Mean over tokens of p^beta (1 - p)^beta2 log p, the weights without gradient.

    Source: arXiv 2505.11953; open-unlearning src/trainer/utils.py.
    """
    p = _probability(inputs)
    return inputs.token_mean(p**keys.beta * (1 - p) ** keys.beta2 * inputs.policy.logprob)


def _entropy(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
    """Return the (K,) entropies (nats) of the policy's distributions, without gradient."""
    log_p = policy.logits.detach().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


@term("etw", per_token=lambda loss: PerToken(_entropy))
def etw(inputs: Inputs, keys: NoKeys) -> torch.Tensor:
    """Raise the loss, more where the model is less sure of the next token (entropy-guided weights).

    Mean over samples of mean w log p, w = n H / sum of H over the sample's n counting tokens, H the
    entropy of the policy's distribution, without gradient.

    Source: arXiv 2604.17785. Its temperature, which the abstract does not give, is 1 here.
    """
    assert inputs.token_values is not None
    share = inputs.token_values / or_one(inputs.mean_in_sample(inputs.token_values))[:, None]
    return inputs.sample_mean(inputs.mean_in_sample(share * inputs.policy.logprob))


def _probability(inputs: Inputs) -> torch.Tensor:
    # Rounding can put a log-probability above 0, and a power of 1 - p must not see that.
    return inputs.policy.logprob.detach().exp().clamp(max=1)
