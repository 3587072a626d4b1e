"""TPO: Logit Preference Loss (LPL) on unwanted words, Preservation Loss (PL) on general words.

Source: "Not All Tokens Are Meant to Be Forgotten", arXiv 2506.03142. The authors' code
(xzhou98/Unlearning-TPO 1d132d4, TOFU/dataloader.py:180-250) takes the batch mean inside the
log-sigmoid (`lpl_reduction=batch`) and a per-token mean for LPL beside a per-sequence sum for PL
(`pl_reduction=sum`); it leaves the answer's end token to the padding and gives NaN for a sample
without unwanted words. Here the end token is a general word, and such a sample adds 0.

Shapes: B samples, T tokens.
"""

import dataclasses

import torch
from torch.nn.functional import logsigmoid

from tif.config.keys import key
from tif.losses.terms import Beta, Inputs, or_one, term
from tif.scoring.token_scores import TokenScores


@dataclasses.dataclass
class LplKeys(Beta):
    """Keys of lpl."""

    lpl_baseline: str = key("none", "mean: subtract the vocabulary's mean logit, which softmax "
        "cannot see", choices=("none", "mean"))
    lpl_reduction: str = key("sample", "sample: log-sigmoid of each sample's mean; batch: of the "
        "batch mean, as released", choices=("sample", "batch"))


def logit_preference_loss(
    policy: TokenScores,
    reference: TokenScores,
    weight: torch.Tensor,
    keys: LplKeys,
    samples: int | None = None,
) -> torch.Tensor:
    """Push the policy's logit of each unwanted token below the reference's.

        d_i   = weighted mean over the tokens of (z_ref - z)
        LPL_i = -(2 / beta) log sigmoid(beta d_i)

    Args:
        policy, reference: scores, (B, T-1).
        weight: (B, T-1), how much the token to predict is unwanted (0 or 1 for a mask); a row of
            zeros adds 0.
        keys: beta > 0: larger values saturate sooner. lpl_baseline=mean subtracts the vocabulary's
            mean logit from z and z_ref: softmax does not see a shift of all logits, so raw logits
            can fall without anything being forgotten. lpl_reduction=sample: mean of LPL_i over the
            B samples; batch: LPL of the mean d_i, as released, where samples without an unwanted
            word are left out of that mean, and 0 where there is no other.
        samples: of the whole batch, where these are a part of it ("sample" only); the mean is over
            those.

    Returns:
        Scalar, >= 0; 2 ln 2 / beta where policy and reference agree, less where the policy has
        forgotten.

    Raises:
        ValueError: If the shapes differ or beta <= 0.
    """
    if policy.logit.shape != reference.logit.shape or policy.logit.shape != weight.shape:
        raise ValueError(f"LPL: want equal shapes, got policy {tuple(policy.logit.shape)}, "
            f"reference {tuple(reference.logit.shape)}, weight {tuple(weight.shape)}")
    if not keys.beta > 0:
        raise ValueError(f"loss.beta: must be > 0, got {keys.beta}")
    z, z_ref = policy.logit, reference.logit
    if keys.lpl_baseline == "mean":
        z, z_ref = z - policy.mean_logit, z_ref - reference.mean_logit
    has_unwanted = (weight != 0).any(1)
    d = ((z_ref - z) * weight).sum(1) / or_one(weight.sum(1))
    if keys.lpl_reduction == "batch":
        mean_d = d.sum() / has_unwanted.sum().clamp(min=1)
        return -2 / keys.beta * logsigmoid(keys.beta * mean_d) * has_unwanted.any()
    return (-2 / keys.beta * logsigmoid(keys.beta * d) * has_unwanted).sum() / (samples or len(d))


def _whole_batch_key(keys: LplKeys) -> str | None:
    return "lpl_reduction" if keys.lpl_reduction == "batch" else None


@term("lpl", reference=True, keys=LplKeys, whole_batch_key=_whole_batch_key)
def lpl(inputs: Inputs, keys: LplKeys) -> torch.Tensor:
    """Push unwanted words' logits below the original model's (Logit Preference Loss, TPO).

    Source: arXiv 2506.03142; xzhou98/Unlearning-TPO TOFU/dataloader.py (`lpl_reduction=batch`).
    """
    assert inputs.reference is not None
    return logit_preference_loss(inputs.policy, inputs.reference, inputs.weight, keys,
        inputs.samples)


def preservation_loss(
    policy: TokenScores, mask: torch.Tensor, reduction: str = "sum", samples: int | None = None
) -> torch.Tensor:
    """Keep general words predictable: their negative log-likelihood.

    Args:
        policy: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict is a general word.
        reduction: over a sample's tokens: "sum" (as released) or "mean"; then the mean over
            samples.
        samples: of the whole batch, where these are a part of it; the mean is over those.

    Returns:
        Scalar in nats, >= 0; lower is better. A row without general words adds 0.
    """
    nll = -(policy.logprob * mask).sum(1)
    if reduction == "mean":
        nll = nll / or_one(mask.sum(1))
    return nll.sum() / (samples or len(nll))


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
        tokens: unwanted tokens of the whole batch, where these are a part of it; the means are over
            those.

    Returns:
        uw_logit_change, uw_logprob_change (nats), uw_mean_logit_change: each negative where the
        policy is lower. A logit that falls with the mean logit, and not the log-probability, has
        forgotten nothing.
    """
    count = or_one(mask.sum() if tokens is None else tokens)
    changes = {}
    with torch.no_grad():
        for name in ("logit", "logprob", "mean_logit"):
            change = getattr(policy, name) - getattr(reference, name)
            changes[f"uw_{name}_change"] = (change * mask).sum() / count
    return changes
