"""Preference losses: the answer against the original model's score, an alternate, or nothing.

An alternate is a refusal or another answer, as `loss.alternates` says.

S = negative log-likelihood (nats) of a sample's counting tokens; log sig = log-sigmoid. Lower is
better. A sample without a counting token adds 0, as in LPL (the authors' codes have no masks):
nothing in it should be lowered or replaced.
"""

import dataclasses

import torch
from torch.nn.functional import logsigmoid

from tif.config.keys import key
from tif.losses.likelihood import cross_entropy
from tif.losses.terms import Beta, Inputs, NoKeys, nll, or_one, term


@term("npo", reference=True, keys=Beta)
def npo(inputs: Inputs, keys: Beta) -> torch.Tensor:
    """Make the answer less likely than it was (Negative Preference Optimization), with saturation.

    Mean over samples of -(2 / beta) log sig(beta (S - S_ref)): 2 ln 2 / beta at the start, 0 when
    the answer is forgotten.

    Source: arXiv 2404.05868; licong-lin/negative-preference-optimization TOFU/dataloader.py.
    """
    return inputs.sample_mean(-2 / keys.beta * logsigmoid(keys.beta * _nll_rise(inputs)))


@dataclasses.dataclass
class SimNpoKeys(Beta):
    """Keys of simnpo."""

    gamma: float = key(0.0, "simnpo: margin in nats per token", at_least=0)


@term("simnpo", keys=SimNpoKeys)
def simnpo(inputs: Inputs, keys: SimNpoKeys) -> torch.Tensor:
    """Make the answer unlikely per token, without a reference (SimNPO).

    Mean over samples of -(2 / beta) log sig(beta (S / n - gamma)), n counting tokens.

    Source: arXiv 2410.07163; open-unlearning src/trainer/unlearn/simnpo.py, which has gamma inside
    beta as here.
    """
    per_token = nll(inputs.policy, inputs.weight) / or_one(inputs.weight.sum(1))
    return inputs.sample_mean(-2 / keys.beta * logsigmoid(keys.beta * (per_token - keys.gamma)))


@term("idk", alternate=True)
def idk(inputs: Inputs, keys: NoKeys) -> torch.Tensor:
    """Learn an alternate instead of the answer.

    The alternate's cross-entropy, nats per token; the answer itself is not read.

    Source: locuslab/tofu dataloader.py (idk), which takes one mean over refusals and retain answers
    together; here each term has its own mean, so that a long retain answer does not outweigh the
    refusal.
    """
    assert inputs.alternate is not None
    return cross_entropy(inputs.alternate)


@term("dpo", reference=True, alternate=True, keys=Beta)
def dpo(inputs: Inputs, keys: Beta) -> torch.Tensor:
    """Prefer an alternate to the answer (Direct Preference Optimization).

    Mean over samples of -(2 / beta) log sig(beta (S - S_ref - R + R_ref)), R = S of the alternate.

    Source: arXiv 2305.18290, eq. 7, with NPO's factor 2 / beta as in open-unlearning
    src/trainer/utils.py and licong-lin/negative-preference-optimization. With generated alternates:
    AltPO, arXiv 2409.13474, whose code has the same factor.
    """
    margin = _nll_rise(inputs) - _nll_rise(inputs.alternate)
    return inputs.sample_mean(-2 / keys.beta * logsigmoid(keys.beta * margin))


@term("kto", reference=True, alternate=True, keys=Beta, has_groups=lambda keys: True)
def kto(inputs: Inputs, keys: Beta) -> torch.Tensor:
    """Make the answer less likely, relative to alternates (Kahneman-Tversky Optimization).

    Mean of 1 - (2 / beta) log sig(k + beta (S - S_ref)), k = mean(R_ref - R) over the samples of a
    micro-batch (`loss.micro_batch`) without gradient: the alternates only set the point from which
    the answer's loss counts.

    Source: arXiv 2402.01306 as licong-lin/negative-preference-optimization TOFU/dataloader.py has
    it (kto_logsigmoid); k is neither clamped at 0 nor scaled by beta there.
    """
    rise = _nll_rise(inputs.alternate).detach()
    k = -inputs.group_sum(rise) / inputs.group_sum(torch.ones_like(rise))
    return inputs.sample_mean(1 - 2 / keys.beta * logsigmoid(k + keys.beta * _nll_rise(inputs)))


@dataclasses.dataclass
class TnpoKeys(Beta):
    """Keys of tnpo."""

    power: float = key(0.0, "tnpo: further power of a token's probability in its weight",
        at_least=0)


@term("tnpo", reference=True, keys=TnpoKeys)
def tnpo(inputs: Inputs, keys: TnpoKeys) -> torch.Tensor:
    """Make each token less likely than it was, with NPO's saturation token by token.

    Mean over tokens of w log p, w = 2 p^(beta + power) / (p^beta + p_ref^beta) without gradient: 1
    at the start with power 0 (TNPO), less on tokens that were unlikely with power > 0 (WTNPO).

    Source: arXiv 2502.19301; tmlr-group/G-effect dataloader.py (beta 4, power 1.5).
    """
    assert inputs.reference is not None
    log_p, log_ref = inputs.policy.logprob.detach(), inputs.reference.logprob
    # p^beta / (p^beta + p_ref^beta) is a sigmoid, which no small probability divides by zero
    weight = 2 * torch.sigmoid(keys.beta * (log_p - log_ref)) * (keys.power * log_p).exp()
    return inputs.token_mean(weight * inputs.policy.logprob)


@dataclasses.dataclass
class GapKeys:
    """Keys of gap."""

    gap: float = key(0.0, "gap: the answer's mean log-probability minus the alternate's that is "
        "wanted, nats per token")


@term("gap", alternate=True, keys=GapKeys)
def gap(inputs: Inputs, keys: GapKeys) -> torch.Tensor:
    """Bring the answer as near to another answer as in a model that never read either.

    Mean over samples of (A - gap)^2, A = mean log p of the answer's counting tokens - mean log p of
    the alternate. Two-sided: an answer that is less likely than a guess costs too.

    Source: our own, after IPO (arXiv 2310.12036, eq. 17), which has a reference in place of the
    fixed gap, and AltPO (arXiv 2409.13474), which makes the alternates. The truth ratio tests
    nearly the same difference.
    """
    assert inputs.alternate is not None
    answer, other = (x.mean_in_sample(x.policy.logprob) for x in (inputs, inputs.alternate))
    return inputs.sample_mean((answer - other - keys.gap) ** 2)


def _nll_rise(inputs: Inputs | None) -> torch.Tensor:
    """Return the rise of each sample's negative log-likelihood, (B,) S - S_ref (nats)."""
    assert inputs is not None  # the term declares that it needs them
    return nll(inputs.policy, inputs.weight) - nll(inputs.reference, inputs.weight)
