"""Terms of whole distributions and of hidden states: a number at each answer token, then its mean.

`tif.scoring.token_values` computes the numbers for a few samples at a time; no (B, T, V) tensor is held. z are the
policy's logits (K, V), y the true token, all in float32.
"""

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from tif.config.schema import Loss
from tif.losses.terms import Inputs, term
from tif.scoring.token_scores import Outputs, PerToken


def _kl(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert reference is not None
        log_p, log_ref = policy.logits.log_softmax(1), reference.logits.log_softmax(1)
        return (log_ref.exp() * (log_ref - log_p)).sum(1)

    return PerToken(value, reference=True)


@term(per_token=_kl)
def kl(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Mean over tokens of KL(original || policy), nats; 0 where nothing changed. A retain term.

    Source: locuslab/tofu dataloader.py (KL) and open-unlearning src/trainer/utils.py, which average over prompt and
    padding too; jaechan-repo/muse_bench takes raw logits for probabilities. Here: answer tokens, probabilities.
    """
    return x.token_mean(x.token_values)


def _undial(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert reference is not None
        lowered = reference.logits
        at = policy.targets[:, None]
        lowered = lowered.scatter(1, at, lowered.gather(1, at) - cfg.beta)
        return -(lowered.softmax(1) * policy.logits.log_softmax(1)).sum(1)

    return PerToken(value, reference=True)


@term(per_token=_undial)
def undial(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Self-distillation: cross-entropy to the original's softmax with beta taken from the true token's logit.

    Nats per token; its least value is the entropy of the adjusted distribution. Source: arXiv 2402.10052;
    open-unlearning src/trainer/utils.py, which averages over prompt and padding too (and lowers token V-100 there).
    """
    return x.token_mean(x.token_values)


def _ceu(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        logits = policy.logits
        wanted = logits.detach().scatter(1, policy.targets[:, None], -torch.inf).softmax(1)
        return -(wanted * logits.log_softmax(1)).sum(1)

    return PerToken(value)


@term(per_token=_ceu)
def ceu(x: Inputs, cfg: Loss) -> torch.Tensor:
    """CE-U: cross-entropy to the policy's own softmax with the true token struck out (no gradient), nats per token.

    Source: arXiv 2503.01224; open-unlearning src/trainer/unlearn/ceu.py. The authors leave out the answer's first
    token: `loss.skip=1`.
    """
    return x.token_mean(x.token_values)


def _whp(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert reference is not None
        return cross_entropy(policy.logits, reference.logits.argmax(1), reduction="none")

    return PerToken(value, reference=True, lowered=True)


@term(per_token=_whp)
def whp(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Who's Harry Potter, distilled: cross-entropy to the token of the largest lowered logit, nats per token.

    The lowered logits are z_start - alpha relu(z_reinforced - z_start), see models.whp. Source: arXiv 2310.02238. Left
    out: the paper's second half, a dictionary of names and generic ones for them, which someone has to write.
    """
    return x.token_mean(x.token_values)


def _pdu(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        logits = policy.logits
        return (logits.amax(1) - logits.mean(1)) ** 2

    return PerToken(value)


@term(per_token=_pdu)
def pdu(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Flatten the distribution: mean over tokens of (max z - mean z)^2, in logits squared; 0 = all tokens alike.

    Source: open-unlearning src/trainer/unlearn/pdu.py (primal-dual unlearning, with `loss.dual`), which averages over
    prompt and padding too.
    """
    return x.token_mean(x.token_values)


def _muse_logit_npo(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert reference is not None
        change = reference.logits - policy.logits
        return (-2 / cfg.beta * logsigmoid(cfg.beta * change)).mean(1)

    return PerToken(value, reference=True)


@term(per_token=_muse_logit_npo)
def muse_logit_npo(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Legacy: mean over tokens and over the whole vocabulary of -(2 / beta) log sig(beta (z_ref - z)).

    What MUSE's released code calls NPO, with which its published numbers were made; use `npo` for anything new. Source:
    jaechan-repo/muse_bench baselines/baselines/iterative.py, which averages over prompt and padding too.
    """
    return x.token_mean(x.token_values)


def control_vector(size: int, scale: float, seed: int) -> torch.Tensor:
    """(size,) float32 of length `scale`: uniform in the unit cube, then scaled. Global random state untouched."""
    vector = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm() * scale


def _rmu(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert policy.hidden is not None
        goal = control_vector(policy.hidden.shape[1], cfg.rmu.scale, cfg.rmu.seed).to(policy.hidden.device)
        return (policy.hidden - goal).square().mean(1)

    return PerToken(value, layer=cfg.rmu.layer)


@term(per_token=_rmu)
def rmu(x: Inputs, cfg: Loss) -> torch.Tensor:
    """Misdirection: mean squared distance of the tokens' hidden states from one random vector, averaged per sample.

    Source: arXiv 2403.03218; open-unlearning src/trainer/unlearn/rmu.py (mean over answer tokens, the vector from
    torch.rand). The paper trains three layers' down-projections, open-unlearning's configuration all weights, as here.
    """
    return _sample_token_mean(x)


def _hidden(cfg: Loss) -> PerToken:
    def value(policy: Outputs, reference: Outputs | None) -> torch.Tensor:
        assert policy.hidden is not None
        assert reference is not None
        assert reference.hidden is not None
        return (policy.hidden - reference.hidden).square().mean(1)

    return PerToken(value, reference=True, layer=cfg.rmu.layer)


@term(per_token=_hidden)
def hidden(x: Inputs, cfg: Loss) -> torch.Tensor:
    """RMU's retain term: mean squared distance from the original's hidden states, averaged per sample."""
    return _sample_token_mean(x)


def _sample_token_mean(x: Inputs) -> torch.Tensor:
    assert x.token_values is not None
    return x.sample_mean((x.token_values * x.mask).sum(1) / x.mask.sum(1).clamp(min=1))
