"""TPO: Logit Preference Loss (LPL) on unwanted words, Preservation Loss (PL) on general words.

Source: "Not All Tokens Are Meant to Be Forgotten", arXiv 2506.03142. The authors' code
(xzhou98/Unlearning-TPO 1d132d4, TOFU/dataloader.py:180-250) takes the mean of a micro-batch of four
inside the log-sigmoid (`lpl_reduction=batch`, `micro_batch=4`), a per-token mean for LPL and a
per-sequence sum for PL (`pl_reduction=sum`), and does not clip gradients (its DeepSpeed
configuration names no limit). `configs/loss/tpo_released.yaml` is that. What is left different:

- A sample without unwanted words gives NaN there. Here it is left out of its micro-batch's mean.
- A micro-batch that is smaller at the batch's end counts as much as the others there, here by its
  samples.
- With Llama-3 and Phi the prompt ends in a blank, which belongs to the answer's first token: this
  token is always general there. With Llama-3 the answer's last token is unwanted, unless it ends a
  common word that another token begins. Here both are what the words say. With Llama-2 all agree.
- A token of blanks alone is unwanted there; see tif/identifiers/precomputed.py.
- The answer's end token is the first padding there, and general. So it is here.

Shapes: B samples, T tokens.
"""

import dataclasses

import torch
from torch.nn.functional import logsigmoid

from tif.config.keys import key
from tif.losses.terms import Beta, Inputs, nll, or_one, term
from tif.scoring.token_scores import TokenScores


@dataclasses.dataclass
class LplKeys(Beta):
    """Keys of lpl."""

    lpl_baseline: str = key("none", "mean: subtract the vocabulary's mean logit, which softmax "
        "cannot see", choices=("none", "mean"))
    lpl_reduction: str = key("sample", "sample: log-sigmoid of each sample's mean; batch: of the "
        "mean of each micro_batch, as released", choices=("sample", "batch"))
    lpl_stop: float = key(0.0, "probability below which a token is not lowered any further; 0 = "
        "always lowered", at_least=0, at_most=1)


@term("lpl", reference=True, keys=LplKeys, has_groups=lambda keys: keys.lpl_reduction == "batch")
def lpl(inputs: Inputs, keys: LplKeys) -> torch.Tensor:
    """Push unwanted words' logits below the original model's (Logit Preference Loss, TPO).

        d_i   = weighted mean over the tokens of (z_ref - z)
        LPL_i = -(2 / beta) log sigmoid(beta d_i)          0 for a sample without unwanted words

    >= 0; 2 ln 2 / beta where policy and reference agree, less where the policy has forgotten. The
    value is the mean of LPL_i. With lpl_reduction=batch each d_i is the mean over the samples of
    its micro-batch (`loss.micro_batch`) that have an unwanted word. lpl_baseline=mean subtracts the
    vocabulary's mean logit from z and z_ref: softmax does not see a shift of all logits, so raw
    logits can fall without anything being forgotten. With lpl_stop, tokens that are less likely
    have no gradient, so that the limit is a guess; this is our own.

    Source: arXiv 2506.03142; xzhou98/Unlearning-TPO TOFU/dataloader.py (`lpl_reduction=batch`); the
    differences stand at the head of this file.
    """
    assert inputs.reference is not None
    z, z_ref = inputs.policy.logit, inputs.reference.logit
    if keys.lpl_baseline == "mean":
        z, z_ref = z - inputs.policy.mean_logit, z_ref - inputs.reference.mean_logit
    if keys.lpl_stop:
        z = torch.where(inputs.policy.logprob.exp() < keys.lpl_stop, z.detach(), z)
    d = inputs.mean_in_sample(z_ref - z)
    if keys.lpl_reduction == "sample":
        return inputs.sample_mean(-2 / keys.beta * logsigmoid(keys.beta * d))
    count = inputs.group_sum((inputs.weight != 0).any(1))
    values = -2 / keys.beta * logsigmoid(keys.beta * inputs.group_sum(d) / or_one(count))
    return (values * (count > 0)).sum() / (inputs.samples or len(values))


def preservation_loss(
    policy: TokenScores, mask: torch.Tensor, reduction: str = "sum", samples: int | None = None
) -> torch.Tensor:
    """Keep general words predictable: their negative log-likelihood, mean over samples (nats).

    Args:
        policy: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict is a general word.
        reduction: over a sample's tokens: "sum" (as released) or "mean".
        samples: of the whole batch, where these are a part of it.
    """
    values = nll(policy, mask)
    if reduction == "mean":
        values = values / or_one(mask.sum(1))
    return values.sum() / (samples or len(values))


def unwanted_word_changes(
    policy: TokenScores,
    reference: TokenScores,
    mask: torch.Tensor,
    tokens: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return how far unwanted words have moved from the reference, as means over the mask's tokens.

    Args:
        policy, reference: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict is unwanted.
        tokens: unwanted tokens of the whole batch, where these are a part of it.

    Returns:
        uw_logit_change, uw_logprob_change (nats), uw_mean_logit_change: negative where the policy
        is lower. A logit that falls with the mean logit alone has forgotten nothing.
    """
    count = or_one(mask.sum() if tokens is None else tokens)
    changes = {}
    with torch.no_grad():
        for name in ("logit", "logprob", "mean_logit"):
            change = getattr(policy, name) - getattr(reference, name)
            changes[f"uw_{name}_change"] = (change * mask).sum() / count
    return changes
