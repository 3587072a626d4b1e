"""Preference losses: the answer against the original model's, against nothing, or against an alternate.

An alternate is a refusal or another answer, as `loss.alternates` says.

S = negative log-likelihood (nats) of a sample's masked tokens; log sig = log-sigmoid. Lower is better. A sample without
a masked token adds 0, as in LPL (the authors' codes have no masks): nothing in it should be lowered or replaced.
"""

import torch
from torch.nn.functional import logsigmoid

from tif.config.schema import Loss
from tif.losses.finetune import cross_entropy
from tif.losses.terms import Inputs, nll, term


@term(reference=True)
def npo(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Negative Preference Optimization: mean over samples of -(2 / beta) log sig(beta (S - S_ref)).

    2 ln 2 / beta at the start, 0 when the answer is forgotten. Source: arXiv 2404.05868; licong-lin/
    negative-preference-optimization TOFU/dataloader.py.
    """
    ratio = nll(x.policy, x.mask) - nll(x.reference, x.mask)
    return x.sample_mean(-2 / cfg.beta * logsigmoid(cfg.beta * ratio))


@term()
def simnpo(x: Inputs, cfg: Loss) -> torch.Tensor:
    """NPO without a reference: mean over samples of -(2 / beta) log sig(beta (S / n - gamma)), n masked tokens.

    Source: arXiv 2410.07163; open-unlearning src/trainer/unlearn/simnpo.py, which has gamma inside beta as here.
    """
    per_token = nll(x.policy, x.mask) / x.mask.sum(1).clamp(min=1)
    return x.sample_mean(-2 / cfg.beta * logsigmoid(cfg.beta * (per_token - cfg.gamma)))


@term(alternate=True)
def idk(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Cross-entropy of an alternate in the answer's place, nats per token; the answer itself is not looked at.

    Source: locuslab/tofu dataloader.py (idk), which takes one mean over refusals and retain answers together; here each
    term has its own mean, so that a long retain answer does not outweigh the refusal.
    """
    assert x.alternate is not None
    return cross_entropy(x.alternate)


@term(reference=True, alternate=True)
def dpo(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Direct Preference Optimization of an alternate: mean of -(2 / beta) log sig(beta (S - S_ref - R + R_ref)).

    R is S of the alternate. Source: arXiv 2305.18290, eq. 7, with NPO's factor 2 / beta as in open-unlearning
    src/trainer/utils.py and licong-lin/negative-preference-optimization. With generated alternates: AltPO, arXiv
    2409.13474, whose code has the same factor.
    """
    return x.sample_mean(-2 / cfg.beta * logsigmoid(cfg.beta * (_rise(x) - _rise(x.alternate))))


@term(reference=True, alternate=True, needs_whole_batch=lambda cfg: True)
def kto(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Kahneman-Tversky Optimization: mean of 1 - (2 / beta) log sig(k + beta (S - S_ref)), k = mean(R_ref - R).

    k has no gradient: the alternate only sets the point from which the answer's loss counts. Source: arXiv 2402.01306
    as licong-lin/negative-preference-optimization TOFU/dataloader.py has it (kto_logsigmoid); k is neither clamped at 0
    nor scaled by beta there.
    """
    kept = -_rise(x.alternate).detach().mean()
    return x.sample_mean(1 - 2 / cfg.beta * logsigmoid(kept + cfg.beta * _rise(x)))


def _rise(x: Inputs | None) -> torch.Tensor:
    """(B,) S - S_ref: how much less likely than at the start (nats)."""
    assert x is not None  # the term says that it needs them
    return nll(x.policy, x.mask) - nll(x.reference, x.mask)
