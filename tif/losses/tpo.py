"""Targeted Preference Optimization: Logit Preference Loss on unwanted words, Preservation Loss on general words.

Source: "Not All Tokens Are Meant to Be Forgotten", arXiv 2506.03142. The authors' code (xzhou98/Unlearning-TPO
1d132d4, TOFU/dataloader.py:180-250) takes the batch mean inside the log-sigmoid (`lpl_reduction=batch`) and a
per-token mean for LPL beside a per-sequence sum for PL (`pl_reduction=sum`); it leaves the answer's end token to the
padding and gives NaN for a sample without unwanted words. Here the end token is a general word, and such a sample
adds 0.

Shapes: B samples, T tokens.
"""

import torch
from torch.nn.functional import logsigmoid

from tif.config.schema import Loss
from tif.losses.terms import Inputs, term
from tif.scoring.token_scores import TokenScores


def logit_preference_loss(
    policy: TokenScores,
    reference: TokenScores,
    mask: torch.Tensor,
    beta: float,
    baseline: str = "none",
    reduction: str = "sample",
    samples: int | None = None,
) -> torch.Tensor:
    """Push the policy's logit of each masked token below the reference's.

        d_i   = mean over the mask of (z_ref - z)
        LPL_i = -(2 / beta) log sigmoid(beta d_i)

    Args:
        policy, reference: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict is unwanted; a row without True adds 0.
        beta: > 0; larger values saturate sooner.
        baseline: "mean" subtracts the vocabulary's mean logit from z and z_ref. Softmax does not see a shift of all
            logits, so raw logits can fall without anything being forgotten.
        reduction: "sample": mean of LPL_i over the B samples. "batch": LPL of the mean d_i, as released; samples
            without an unwanted word are left out of that mean, and 0 where there is no other.
        samples: of the whole batch, where these are a part of it ("sample" only); the mean is over those.

    Returns:
        Scalar, >= 0; 2 ln 2 / beta where policy and reference agree, less where the policy has forgotten.

    Raises:
        ValueError: If the shapes differ or beta <= 0.
    """
    if policy.logit.shape != reference.logit.shape or policy.logit.shape != mask.shape:
        raise ValueError(
            f"LPL: want equal shapes, got policy {tuple(policy.logit.shape)}, "
            f"reference {tuple(reference.logit.shape)}, mask {tuple(mask.shape)}"
        )
    if not beta > 0:
        raise ValueError(f"loss.beta: must be > 0, got {beta}")
    z, z_ref = policy.logit, reference.logit
    if baseline == "mean":
        z, z_ref = z - policy.mean_logit, z_ref - reference.mean_logit
    count = mask.sum(1)
    some = count > 0
    d = ((z_ref - z) * mask).sum(1) / count.clamp(min=1)
    if reduction == "batch":
        return -2 / beta * logsigmoid(beta * d.sum() / some.sum().clamp(min=1)) * some.any()
    return (-2 / beta * logsigmoid(beta * d) * some).sum() / (samples or len(some))


@term(reference=True, needs_whole_batch=lambda cfg: cfg.lpl_reduction == "batch")
def lpl(x: Inputs, cfg: Loss) -> torch.Tensor:
    """`logit_preference_loss` as a term."""
    assert x.reference is not None
    return logit_preference_loss(
        x.policy, x.reference, x.mask, cfg.beta, cfg.lpl_baseline, cfg.lpl_reduction, x.samples
    )


def preservation_loss(
    policy: TokenScores, mask: torch.Tensor, reduction: str = "sum", samples: int | None = None
) -> torch.Tensor:
    """Keep general words predictable: their negative log-likelihood.

    Args:
        policy: scores, (B, T-1).
        mask: (B, T-1) bool, True where the token to predict is a general word.
        reduction: over a sample's tokens: "sum" (as released) or "mean"; then the mean over samples.
        samples: of the whole batch, where these are a part of it; the mean is over those.

    Returns:
        Scalar in nats, >= 0; lower is better. A row without general words adds 0.
    """
    nll = -(policy.logprob * mask).sum(1)
    if reduction == "mean":
        nll = nll / mask.sum(1).clamp(min=1)
    return nll.sum() / (samples or len(nll))


def unwanted_word_changes(
    policy: TokenScores, reference: TokenScores, mask: torch.Tensor, tokens: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """How far unwanted words have moved from the reference, as means over the mask's tokens.

    `tokens`: of the whole batch, where these are a part of it; the means are over those.

    Returns:
        uw_logit_change, uw_logprob_change (nats), uw_mean_logit_change: each negative where the policy is lower.
        A logit that falls with the mean logit, and not the log-probability, has forgotten nothing.
    """
    count = (mask.sum() if tokens is None else tokens).clamp(min=1)
    with torch.no_grad():
        return {
            f"uw_{name}_change": ((getattr(policy, name) - getattr(reference, name)) * mask).sum() / count
            for name in ("logit", "logprob", "mean_logit")
        }
