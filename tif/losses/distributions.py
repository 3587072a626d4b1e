"""Terms of whole distributions and of hidden states: a number at each answer token, then its mean.

z are the policy's logits (K, V), y the true token, all in float32.
"""

import dataclasses

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from tif.config.keys import key
from tif.losses.terms import Beta, NoKeys, per_token_term
from tif.scoring.token_scores import Outputs


@per_token_term("kl", role="retain", reference=True)
def kl(policy: Outputs, reference: Outputs, keys: NoKeys) -> torch.Tensor:
    """Keep the policy's distributions near the original model's.

    KL(original || policy), nats per token; 0 where nothing changed.

    Source: locuslab/tofu dataloader.py (KL) and open-unlearning src/trainer/utils.py, which average
    over prompt and padding too; jaechan-repo/muse_bench takes raw logits for probabilities. Here:
    answer tokens, probabilities.
    """
    log_p, log_ref = policy.logits.log_softmax(1), reference.logits.log_softmax(1)
    return (log_ref.exp() * (log_ref - log_p)).sum(1)


@per_token_term("undial", reference=True, keys=Beta)
def undial(policy: Outputs, reference: Outputs, keys: Beta) -> torch.Tensor:
    """Distil the original model with its true token's logit lowered by beta.

    Cross-entropy, nats per token; the least value is the entropy of the adjusted distribution.

    Source: arXiv 2402.10052; open-unlearning src/trainer/utils.py, which averages over prompt and
    padding too (and lowers token V-100 there).
    """
    position = policy.targets[:, None]
    lowered = reference.logits.gather(1, position) - keys.beta
    adjusted = reference.logits.scatter(1, position, lowered)
    return -(adjusted.softmax(1) * policy.logits.log_softmax(1)).sum(1)


@per_token_term("ceu")
def ceu(policy: Outputs, reference: None, keys: NoKeys) -> torch.Tensor:
    """Learn the policy's own distribution without the true token (CE-U).

    Cross-entropy, nats per token; the target has no gradient.

    Source: arXiv 2503.01224; open-unlearning src/trainer/unlearn/ceu.py. The authors leave out the
    answer's first
    token: `loss.skip=1`.
    """
    others = policy.logits.detach().scatter(1, policy.targets[:, None], -torch.inf)
    return -(others.softmax(1) * policy.logits.log_softmax(1)).sum(1)


@per_token_term("whp", reference=True, lowered=True)
def whp(policy: Outputs, reference: Outputs, keys: NoKeys) -> torch.Tensor:
    """Learn the token of the largest lowered logit (Who's Harry Potter, distilled).

    Cross-entropy, nats per token. The lowered logits are z_start - alpha relu(z_reinforced -
    z_start), alpha = `loss.whp`, see tif.models.derived.

    Source: arXiv 2310.02238. Left out: the paper's second half, a dictionary of names and generic
    ones for them, which someone has to write.
    """
    return cross_entropy(policy.logits, reference.logits.argmax(1), reduction="none")


@per_token_term("rkld", reference=True, lowered=True)
def rkld(policy: Outputs, reference: Outputs, keys: NoKeys) -> torch.Tensor:
    """Learn the lowered logits' distribution, where it has the most (reverse KL).

    KL(policy || q), nats per token, q = softmax of the lowered logits of `whp`; 0 where they agree.

    Source: arXiv 2406.01983, which lowers after a pass over the forget set, as whp does here.
    """
    log_p, log_q = policy.logits.log_softmax(1), reference.logits.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


@dataclasses.dataclass
class PaluKeys:
    """Keys of palu."""

    palu_top: int = key(1, "palu: the original model's likeliest tokens, whose logits are brought "
        "to the mean", at_least=1)


@per_token_term("palu", reference=True, keys=PaluKeys)
def palu(policy: Outputs, reference: Outputs, keys: PaluKeys) -> torch.Tensor:
    """Bring the logits of the original's likeliest tokens to the vocabulary's mean (PALU).

    Mean over those tokens of (z_k - mean z)^2, in logits squared; 0 = no likelier than the mean.

    Source: arXiv 2601.03190; nxZhai/PALU src/trainer/unlearn/palu.py, which may take the first
    tokens of each span alone. Here all of a span count. Its KL on general words is
    `loss.preserve=pl` here, cross-entropy.
    """
    top = reference.logits.topk(min(keys.palu_top, reference.logits.shape[1]), dim=1).indices
    return (policy.logits.gather(1, top) - policy.logits.mean(1, keepdim=True)).square().mean(1)


@per_token_term("pdu")
def pdu(policy: Outputs, reference: None, keys: NoKeys) -> torch.Tensor:
    """Make the distribution over the vocabulary flat.

    Mean over tokens of (max z - mean z)^2, in logits squared; 0 = all tokens alike.

    Source: open-unlearning src/trainer/unlearn/pdu.py (primal-dual unlearning, with `loss.dual`),
    which averages over prompt and padding too.
    """
    return (policy.logits.amax(1) - policy.logits.mean(1)) ** 2


@per_token_term("muse_logit_npo", reference=True, keys=Beta)
def muse_logit_npo(policy: Outputs, reference: Outputs, keys: Beta) -> torch.Tensor:
    """Lower all logits of the vocabulary, with saturation; legacy, use `npo` for anything new.

    Mean over the vocabulary of -(2 / beta) log sig(beta (z_ref - z)). What MUSE's released code
    calls NPO, with which its published numbers were made.

    Source: jaechan-repo/muse_bench baselines/baselines/iterative.py, which averages over prompt and
    padding too.
    """
    change = reference.logits - policy.logits
    return (-2 / keys.beta * logsigmoid(keys.beta * change)).mean(1)


@dataclasses.dataclass
class Rmu:
    """Layer and target vector of RMU."""

    layer: int = key(7, "decoder layer whose output is steered, counted from 0; retain=hidden "
        "keeps it", at_least=0)
    scale: float = key(2.0, "length of the random vector that forget tokens are steered to",
        above=0)
    seed: int = key(0, "draws that vector", at_least=0)


@dataclasses.dataclass
class RmuKeys:
    """Keys of rmu and hidden."""

    rmu: Rmu = dataclasses.field(default_factory=Rmu)


def control_vector(size: int, scale: float, seed: int) -> torch.Tensor:
    """Return (size,) float32 of length `scale`: uniform in the unit cube, then scaled.

    The global random state is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.rand(size, generator=generator, dtype=torch.float32)
    return vector / vector.norm() * scale


@per_token_term("rmu", keys=RmuKeys, reduction="sample", layer=lambda keys: keys.rmu.layer)
def rmu(policy: Outputs, reference: None, keys: RmuKeys) -> torch.Tensor:
    """Steer hidden states to a random vector (RMU): mean squared distance, averaged per sample.

    The states are the output of decoder block `rmu.layer`, of the last one before the final norm.

    Source: arXiv 2403.03218; centerforaisafety/wmdp rmu/unlearn.py and open-unlearning
    src/trainer/unlearn/rmu.py, which hook that block (mean over answer tokens, the vector from
    torch.rand). The paper trains three layers' down-projections, open-unlearning's configuration
    all weights, as here.
    """
    assert policy.hidden is not None
    goal = control_vector(policy.hidden.shape[1], keys.rmu.scale,
        keys.rmu.seed).to(policy.hidden.device)
    return (policy.hidden - goal).square().mean(1)


@per_token_term(
    "hidden",
    role="retain",
    keys=RmuKeys,
    reduction="sample",
    layer=lambda keys: keys.rmu.layer,
    reference=True,
)
def hidden(policy: Outputs, reference: Outputs, keys: RmuKeys) -> torch.Tensor:
    """Keep hidden states near the original model's (RMU's retain term).

    Mean squared distance, averaged per sample.

    Source: arXiv 2403.03218; open-unlearning src/trainer/unlearn/rmu.py.
    """
    assert policy.hidden is not None
    assert reference.hidden is not None
    return (policy.hidden - reference.hidden).square().mean(1)
